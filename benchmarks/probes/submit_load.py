"""`submit_load PORT TOKEN SERVER_PID SECONDS CLIENTS`: clients that submit jobs and never wait.

Each has a connection that is kept alive and sends its next job as soon as the last is answered,
whatever the answer was. Prints JSON: by status (0: no answer) the milliseconds that each answer
took; for each accepted job its id and its number of tasks; the server's resident memory.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections import defaultdict
from itertools import count

import psutil

LARGE_JOB_TASKS, LARGE_JOB_EVERY = 1000, 50
ANSWER_SECONDS = 60.0
MEMORY_SECONDS = 0.5
START_SECONDS = 30.0
WARM_UP_REQUESTS = 16


class Load:
    def __init__(self, port: int, token: str, until: float) -> None:
        self.port, self.until = port, until
        self.took_ms: dict[int, list[float]] = defaultdict(list)
        self.accepted: list[tuple[int, int]] = []
        self.memory_mb: list[tuple[float, float]] = []
        self.numbers = count(1)
        self.requests = {tasks: request(tasks, token) for tasks in (1, LARGE_JOB_TASKS)}

    async def client(self) -> None:
        while time.monotonic() < self.until:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                self.took_ms[0].append(0.0)
                await asyncio.sleep(0.1)
                continue
            with contextlib.closing(writer):
                while time.monotonic() < self.until and await self.submit(reader, writer):
                    pass

    async def submit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection is still good."""
        tasks = 1 if next(self.numbers) % LARGE_JOB_EVERY else LARGE_JOB_TASKS
        began_at = time.monotonic()
        try:
            writer.write(self.requests[tasks])
            status, stays, body = await asyncio.wait_for(answer(reader), ANSWER_SECONDS)
        except (OSError, EOFError, TimeoutError):
            status, stays, body = 0, False, b""
        self.took_ms[status].append(1000 * (time.monotonic() - began_at))
        if status == 201:
            self.accepted.append((json.loads(body)["id"], tasks))
        return stays

    async def watch(self, server_pid: int) -> None:
        """Notes the resident megabytes of the server and the processes it started."""
        server, began_at = psutil.Process(server_pid), time.monotonic()
        while True:
            sizes = [it.memory_info().rss for it in (server, *server.children(recursive=True))]
            self.memory_mb.append((time.monotonic() - began_at, sum(sizes) / 2**20))
            if time.monotonic() >= self.until:
                return
            await asyncio.sleep(MEMORY_SECONDS)


def request(tasks: int, token: str) -> bytes:
    body = json.dumps({"name": "load", "tasks": [{"payload": {"cmd": "true"}}] * tasks})
    head = (
        "POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """An answer's status, whether the connection stays, and its body."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(lines[0].split()[1]), headers.get("connection") != "close", body


async def warm_up(port: int) -> None:
    """Waits for the server, and has its processes load what they load on their first request."""
    give_up_at = time.monotonic() + START_SECONDS
    for _ in range(WARM_UP_REQUESTS):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                if time.monotonic() > give_up_at:
                    raise
                await asyncio.sleep(0.1)
        with contextlib.closing(writer):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await answer(reader)


async def main(port: str, token: str, server_pid: str, seconds: str, clients: str) -> None:
    await warm_up(int(port))
    load = Load(int(port), token, time.monotonic() + float(seconds))
    everyone = [load.client() for _ in range(int(clients))]
    await asyncio.gather(load.watch(int(server_pid)), *everyone)
    found = {"took_ms": load.took_ms, "accepted": load.accepted, "memory_mb": load.memory_mb}
    print(json.dumps(found))


asyncio.run(main(*sys.argv[1:]))
