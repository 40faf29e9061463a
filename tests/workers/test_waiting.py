"""Heartbeats that wait for work, through a real gunicorn of one process."""

import json
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from django.db import connection
from django.db.models.functions import Now

from dtsproject import wakeups
from dtsproject.parking import PARK
from jobs import queue
from jobs.models import Queue, Token
from tests.api import Client
from tests.helpers import claim, promote, register, shell, submit, wait_until
from tests.processes.conftest import Fleet
from tests.workers.test_api_workers import Boot
from workers import registry, waiting
from workers.models import State, Worker
from workers.transports.http import HttpTransport

pytestmark = pytest.mark.django_db(transaction=True)
THREADS = 8  # gunicorn.conf.py
SOON = 0.8


@pytest.fixture(scope="module")
def server(django_db_setup, tmp_path_factory):
    made = Fleet(tmp_path_factory.mktemp("api"))
    made.api(DTS_LEASE_SECONDS="30", DTS_HEARTBEAT_SECONDS="5", DTS_KILL_GRACE_SECONDS="5")
    yield made
    made.end()
    print(made.logs())


@pytest.fixture
def token() -> str:
    return Token.issue("t", ["work"])[1]


class Waiting:
    """A worker's heartbeat, sent and not answered yet, over a connection of its own."""

    def __init__(self, server, token, worker, seconds=20.0, version="1.1", **more) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        body = {"boot_id": str(worker.boot_id), "held": [], "wait_seconds": seconds, **more}
        self.is_over = False
        text = json.dumps(body)
        head = (
            f"POST /api/v1/workers/{worker.pk}/heartbeat HTTP/{version}",
            "Host: localhost",
            "Content-Type: application/json",
            f"Authorization: Bearer {token}",
            f"Content-Length: {len(text)}",
        )
        self.socket.sendall("\r\n".join([*head, "", text]).encode())

    def answer(self, seconds: float = 20.0) -> dict:
        self.is_over = True
        self.socket.settimeout(seconds)
        with self.socket.makefile("rb") as lines:
            self.head = [*iter(lambda: lines.readline().decode().strip().lower(), "")]
            (size,) = (line.split()[1] for line in self.head if line.startswith("content-length"))
            return json.loads(lines.read(int(size)))

    def is_silent(self, seconds: float = 0.3) -> bool:
        self.socket.settimeout(seconds)
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True


@pytest.fixture
def wait(server, token):
    made: list[Waiting] = []

    def begin(worker, **more) -> Waiting:
        made.append(Waiting(server, token, worker, **more))
        return made[-1]

    yield begin
    # Or the server would look for them while the tables are emptied.
    Worker.objects.update(state=State.GONE)
    wakeups.notify(wakeups.READY)
    for waits in made:
        if not waits.is_over:
            waits.answer()
        waits.socket.close()


def listening(name: str = "dts api") -> bool:
    """Whether a process of that name has a connection that hears of ready tasks."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT FROM pg_stat_activity WHERE query = 'LISTEN dts_ready' "
            "AND application_name = %s AND datname = current_database()",
            [name],
        )
        return bool(cursor.fetchall())


def beats() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM workers WHERE last_heartbeat > started_at")
        return cursor.fetchone()[0]


def test_more_wait_than_there_are_threads_and_everybody_else_is_answered(server, wait):
    waits = [wait(register(f"w{n}")) for n in range(3 * THREADS)]
    wait_until(lambda: beats() == len(waits))

    with ThreadPoolExecutor(THREADS) as pool:
        began_at = time.monotonic()
        answers = list(pool.map(server.ask, ["/healthz"] * THREADS))
        assert time.monotonic() - began_at < 5
    assert {status for status, _, _ in answers} == {200}
    assert all(one.is_silent(0.01) for one in waits)

    submit(*["a"] * len(waits))
    promote()
    told = [one.answer() for one in waits]
    assert {(it["state"], it["ready"]) for it in told} == {("online", True)}


def test_who_waits_is_told_at_once_and_goes_on_over_its_connection(wait, server, token):
    worker = register()
    waits = wait(worker)
    wait_until(lambda: beats() == 1)
    for _ in range(2):
        time.sleep(0.2)
        submit("a")
        promote()
        assert waits.answer(SOON)["ready"] is True
        assert claim(worker)
        waits.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert waits.answer() == {"status": "ok"}
        waits.socket.close()
        waits = wait(worker)


def test_what_came_before_it_asked_is_told_at_once(wait):
    worker = register()
    submit("a")
    promote()
    assert wait(worker).answer(SOON)["ready"] is True


def test_only_who_may_claim_is_told_and_no_more_than_there_are_tasks(wait):
    able, unable = register("able", capabilities=["gpu"]), register("unable")
    others = [register(f"w{n}", queues=["q"]) for n in range(3)]
    waits = [wait(worker) for worker in (able, unable, *others)]
    wait_until(lambda: beats() == 5)
    submit(shell("a", requires=["gpu"]))
    promote()
    assert waits[0].answer(SOON)["ready"] is True
    assert all(one.is_silent() for one in waits[1:])

    submit("b", queue="q")
    promote()
    assert len(registry.claimants([it.pk for it in others], 10)) == 1
    Queue.objects.filter(name="q").update(paused_at=Now())  # and what was queued stays so
    assert registry.claimants([it.pk for it in others], 10) == []


def test_as_many_are_told_as_a_lane_has_tasks():
    workers = [register(f"w{n}") for n in range(5)]
    submit("a", "b")
    promote()
    ids = {worker.pk for worker in workers}
    assert len(registry.claimants([*ids], 10)) == 2
    assert len(registry.claimants([*ids], 1)) == 1
    assert {pk for _ in range(100) for pk in registry.claimants([*ids], 1)} == ids
    Worker.objects.filter(name="w0").update(state=State.CORDONED)
    Worker.objects.exclude(name="w0").update(capabilities=[])
    queue.claim(worker_id=workers[1].pk, boot_id=workers[1].boot_id, limit=2)
    assert registry.claimants([*ids], 10) == [workers[0].pk]


def test_who_has_too_few_slots_is_not_told():
    few, enough = register("few", slots=2), register("enough", slots=4)
    submit(shell("a", slots=4))
    promote()
    assert registry.claimants([few.pk], 10) == []
    assert registry.claimants([few.pk, enough.pk], 10) == [enough.pk]


def test_after_its_time_it_is_answered_and_is_renewed_from_when_it_asked(wait):
    worker = register()
    began_at = time.monotonic()
    answer = wait(worker, seconds=1.5).answer()
    assert answer == {"state": "online", "lost": [], "cancelled": [], "ready": False}
    assert 1.4 < time.monotonic() - began_at < 3.5
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM now() - last_heartbeat) FROM workers")
        assert cursor.fetchone()[0] > 1.4


def test_who_does_not_only_wait_for_work_is_answered_at_once(wait):
    worker = register()
    (task,) = (submit("a"), promote(), claim(worker))[2]
    held = [{"task_id": task.task_id, "fencing_token": task.fencing_token}]
    assert wait(worker, held=held).answer(2)["ready"] is None
    assert wait(worker, seconds=0).answer(2)["ready"] is None
    Worker.objects.update(state=State.CORDONED)
    assert wait(worker).answer(2) == {
        "state": "cordoned", "lost": [], "cancelled": [], "ready": None,
    }  # fmt: skip


def test_a_drain_is_heard_soon(wait):
    waits = wait(register())
    wait_until(lambda: beats() == 1)
    registry.drain(Worker.objects.all())
    assert waits.answer(3)["ready"] is True


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_connection_that_is_to_be_closed_is_closed_with_the_answer(wait, version):
    """As proxies ask for by default."""
    waits = wait(register(), seconds=1, version=version)
    assert waits.answer()["ready"] is False
    if version == "1.0":
        assert waits.socket.recv(1) == b""


def test_a_wait_is_refused_as_any_request_is(wait):
    worker = register()
    worker.boot_id = uuid.uuid4()
    assert wait(worker).answer(3)["code"] == "worker_superseded"
    for seconds, code in ((-1, "min_value"), (10**9, "max_value"), ("1", "invalid")):
        answer = wait(worker, seconds=seconds).answer(3)
        assert answer["errors"][0]["pointer"] == "#/wait_seconds"
        assert answer["errors"][0]["code"] == code


def test_who_goes_away_while_it_waits_harms_nobody(wait):
    gone, stays = register("gone"), register("stays")
    left = wait(gone)
    left.socket.close()
    left.is_over = True
    waits = wait(stays)
    wait_until(lambda: beats() == 2)
    submit("a", "b")
    promote()
    assert waits.answer(SOON)["ready"] is True


def test_its_connections_cut_the_server_goes_on_telling(wait):
    """As when PostgreSQL starts anew: those who wait are told to ask for themselves."""
    worker = register()
    waits = wait(worker)
    wait_until(lambda: beats() == 1)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'dts api' AND datname = current_database() "
            "AND (query LIKE 'LISTEN %' OR query LIKE 'WITH work %')"
        )
    assert waits.answer(5)["ready"] is None
    time.sleep(1)
    waits = wait(worker)
    wait_until(listening)
    submit("a")
    promote()
    assert waits.answer(SOON)["ready"] is True


def test_the_transport_hears_by_its_descriptor(server, token):
    transport = HttpTransport(server.url, lambda: token)
    transport.register(registration())
    assert (transport.told(), transport.fileno(), transport.listening_seconds()) == (None,) * 3
    transport.listen()
    fd = transport.fileno()
    transport.listen()
    assert transport.fileno() == fd
    assert transport.listening_seconds() > 5
    assert transport.told() is None
    submit("a")
    promote()
    with closing(socket.socket(fileno=socket.dup(fd))) as line:
        line.settimeout(SOON)
        assert line.recv(1, socket.MSG_PEEK)
    assert transport.heard() is False
    assert transport.fileno() is None
    _, beat = transport.told()
    assert (beat.state, beat.ready) == ("online", True)
    assert (transport.told(), transport.listening_seconds()) == (None, None)
    transport.leave()


def registration() -> registry.Registration:
    return registry.Registration(name="w1", boot_id=uuid.uuid4(), machine_id="m1", slots=1)


class Asked:
    """A parked request."""

    def __init__(self) -> None:
        self.said: list[bytes] = []

    def must_end(self) -> bool:
        return False

    def answer(self, body: bytes) -> None:
        self.said.append(body)


@pytest.fixture
def room(monkeypatch):
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 60)
    made = waiting.WaitingRoom()
    yield made
    made.stop()
    made._thread.join(10)
    made._listener.close()


def test_a_wake_up_is_heard_and_nobody_has_to_wait_for_the_next_look(room):
    worker, asked = register(), Asked()
    room.admit(waiting.Seat(worker.pk, time.monotonic() + 60, b"", asked))
    wait_until(lambda: listening("dts"))
    time.sleep(0.3)
    assert not asked.said
    submit("a")
    promote()
    wait_until(lambda: asked.said, 5)
    assert asked.said == [waiting.READY]


def test_in_a_room_that_is_full_nobody_waits(monkeypatch):
    boot, parked = Boot(Client("work")), []
    given = {"boot_id": boot.boot_id, "held": [], "wait_seconds": 5}
    path = f"/api/v1/workers/{boot.id}/heartbeat"
    answer = boot.client.send(path, given, **{PARK: parked.append})
    assert b"".join(answer.streaming_content) == b""
    assert len(parked) == 1
    monkeypatch.setattr(waiting, "MOST_SEATS", 0)
    assert boot.client.send(path, given, **{PARK: parked.append}).json()["ready"] is None
    assert len(parked) == 1
