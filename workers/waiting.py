"""Heartbeats whose answers wait until there is work: an idle worker of the API asks no more often.

One thread of a server's process looks for all who wait in it, at each wake-up and four times a
second anyway; who waits costs neither a thread nor a question.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from django.db import connection
from django.http import StreamingHttpResponse

from dtsproject import wakeups
from dtsproject.loop import Loop
from dtsproject.parking import Parked
from workers import registry

# As a look costs the same for one who came and for many, nobody who comes is looked for alone.
LOOK_SECONDS = 0.25
MOST_SECONDS = 25.0  # less than proxies wait for an answer
MOST_SEATS = 500  # of the 1,000 connections that gunicorn has in each process
# Some workers at a time: each claims as much as it has slots for, so fewer may be needed.
MOST_AT_ONCE = 16
# By then most who were told have claimed; who looked sooner would tell others of the same tasks.
TOLD_SECONDS = 0.04
# However slow the database is, it is asked no more than a quarter of the time.
LOOKS_SHARE, LONGEST_PAUSE_SECONDS = 1 / 4, 0.2
# What is said of work; each as long as the others, so that the answer's length is known before.
READY, NOT_READY, UNKNOWN = b" true}", b"false}", b" null}"


class Seat(NamedTuple):
    worker_id: int
    until: float
    head: bytes
    parked: Parked


def put_off(
    park: Callable[[Callable[[Parked], None]], None],
    worker_id: int,
    beat: Mapping[str, Any],
    seconds: float,
) -> StreamingHttpResponse:
    """The answer to a heartbeat, with `ready`, once there may be work or the time is over."""
    given = {name: value for name, value in beat.items() if name != "ready"}
    head = json.dumps(given).encode()[:-1] + b', "ready": '
    until = time.monotonic() + min(seconds, MOST_SECONDS)

    def nothing_yet() -> Iterator[bytes]:
        park(lambda parked: room.admit(Seat(worker_id, until, head, parked)))
        yield from ()

    response = StreamingHttpResponse(nothing_yet(), content_type="application/json")
    response["Content-Length"] = str(len(head) + len(READY))
    return response


class WaitingRoom(Loop):
    """All who wait in this process."""

    channels = (wakeups.READY,)

    def __init__(self) -> None:
        super().__init__()
        self._seats: list[Seat] = []
        self._changes = threading.Lock()
        self._thread: threading.Thread | None = None
        self._look_at = 0.0

    def has_place(self) -> bool:
        return len(self._seats) < MOST_SEATS

    def admit(self, seat: Seat) -> None:
        with self._changes:
            self._seats.append(seat)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._serve, name="waiting", daemon=True)
                self._thread.start()
        if len(self._seats) == 1:
            self.wake()

    def _serve(self) -> None:
        try:
            self.run()
        finally:
            self.lost_contact()
            connection.close()

    def show_life(self) -> None:
        """Its process is none of the loops."""

    def pause(self) -> float:
        return LOOK_SECONDS if self._seats else self.interval_seconds

    def tick(self) -> int:
        time.sleep(max(0.0, self._look_at - time.monotonic()))
        now = time.monotonic()
        self._tell(lambda seat: seat.until <= now or seat.parked.must_end(), NOT_READY)
        waiting = [seat.worker_id for seat in self._seats]
        if not waiting:
            return 0
        may_claim = set(registry.claimants(waiting, MOST_AT_ONCE))
        pause = min((time.monotonic() - now) / LOOKS_SHARE, LONGEST_PAUSE_SECONDS)
        told = self._tell(lambda seat: seat.worker_id in may_claim, READY)
        self._look_at = now + max(pause, TOLD_SECONDS if told else 0.0)
        return told

    def lost_contact(self) -> None:
        """Nobody can be told of work: they ask for themselves."""
        self._tell(lambda _: True, UNKNOWN)

    def _tell(self, whom: Callable[[Seat], bool], what: bytes) -> int:
        with self._changes:
            told = [seat for seat in self._seats if whom(seat)]
            self._seats = [seat for seat in self._seats if seat not in told]
        for seat in told:
            seat.parked.answer(seat.head + what)
        return len(told)


room = WaitingRoom()
