"""`idle_workers PORT TOKEN SERVER_PID WORKERS SECONDS TASKS HOW`: workers of the API without work.

They are in this one process and speak by the real transport; they run nothing, and report at once.
HOW is `waiting`, or `asking`: each second for work, each five with a heartbeat. First nothing comes
for SECONDS, then TASKS one by one. Prints JSON: of the server's processes, the cores they used and
their resident megabytes meanwhile.
"""

import json
import random
import select
import sys
import threading
import time
import uuid

import django
import psutil

django.setup()

from jobs.specs import Ending  # noqa: E402 - needs django.setup() first
from jobs.states import Outcome  # noqa: E402 - the same
from workers.registry import Registration  # noqa: E402 - the same
from workers.transports.http import HttpTransport  # noqa: E402 - the same
from workers.transports.link import Link  # noqa: E402 - the same

SETTLE_SECONDS = 3.0
ASK_SECONDS, BEAT_SECONDS = 1.0, 5.0


class Idle:
    """One worker."""

    def __init__(self, server: str, token: str, number: int, *, waits: bool) -> None:
        self.transport = HttpTransport(server, lambda: token)
        name, boot_id = f"idle{number}", uuid.uuid4()
        registration = Registration(name=name, boot_id=boot_id, machine_id="bench", slots=1)
        self.transport.register(registration)
        self.waits = waits
        self._ask_at = time.monotonic() + number % 100 / 100 * ASK_SECONDS
        self._beat_at = time.monotonic() + number % 100 / 100 * BEAT_SECONDS

    def work(self) -> None:
        """Asks for a task, and says that it is done."""
        _, tasks = self.transport.exchange([], 1)
        while tasks:
            endings = [Ending(it.task_id, it.fencing_token, Outcome.DONE) for it in tasks]
            _, tasks = self.transport.exchange(endings, 1)

    def turn(self) -> None:
        """Does what is due."""
        now = time.monotonic()
        if self.waits:
            told = self.transport.told()
            if told and told[1].ready is not False:
                self.work()
            self.transport.listen()
            return
        if now >= self._beat_at:
            self._beat_at = now + BEAT_SECONDS
            self.transport.heartbeat({}, draining=False)
        if now >= self._ask_at:
            self._ask_at = now + ASK_SECONDS
            self.work()


def keep_idle(workers: list[Idle]) -> None:
    while True:
        poll = select.poll()
        listening = {}
        for worker in workers:
            if (fd := worker.transport.fileno()) is not None:
                poll.register(fd, select.POLLIN)
                listening[fd] = worker
        for fd, _ in poll.poll(1000 if listening else 10):
            listening.pop(fd).transport.heard()
        for worker in workers:
            if worker.transport.fileno() is None or not worker.waits:
                worker.turn()


def submit(server: str, token: str, tasks: int) -> None:
    link = Link(server, lambda: token)
    for _ in range(tasks):
        time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - no secret
        link.post("/api/v1/jobs", {"name": "idle", "tasks": [{"payload": {"cmd": "true"}}]})
    time.sleep(ASK_SECONDS + 1)


def used(server_pid: int) -> tuple[float, float]:
    """Seconds of CPU and resident megabytes, by now."""
    server = psutil.Process(server_pid)
    everyone = [server, *server.children(recursive=True)]
    cpu = sum(sum(process.cpu_times()[:2]) for process in everyone)
    return cpu, sum(process.memory_info().rss for process in everyone) / 2**20


def main(port: str, token: str, pid: str, number: str, seconds: str, tasks: str, how: str) -> None:
    server = f"http://127.0.0.1:{port}"
    waits = how == "waiting"
    workers = [Idle(server, token, n, waits=waits) for n in range(int(number))]
    threading.Thread(target=keep_idle, args=[workers], daemon=True).start()
    time.sleep(SETTLE_SECONDS)
    before, began_at = used(int(pid)), time.monotonic()
    time.sleep(float(seconds))
    after, took = used(int(pid)), time.monotonic() - began_at
    submit(server, token, int(tasks))
    print(json.dumps({"cores": (after[0] - before[0]) / took, "memory_mb": after[1]}))


main(*sys.argv[1:])
