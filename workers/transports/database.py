"""Straight to PostgreSQL, for workers that may hold its password."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar
from uuid import UUID

from django.db import Error as DatabaseError
from django.db import connection

from dtsproject import wakeups
from dtsproject.errors import Unreachable
from jobs import logs
from jobs.marks import Marks
from jobs.specs import Claimed, Ending, LogPart
from workers import registry
from workers.registry import Beat, Registration

P = ParamSpec("P")
R = TypeVar("R")


def reaching(call: Callable[P, R]) -> Callable[P, R]:
    """Turns what a broken connection raises into Unreachable; the next call connects anew."""

    @wraps(call)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except DatabaseError as error:
            connection.close()
            raise Unreachable(str(error).strip()) from error

    return wrapper


class DatabaseTransport:
    worker_id: int
    boot_id: UUID

    def __init__(self) -> None:
        self.marks = Marks()
        self.listener = wakeups.Listener(wakeups.READY, wakeups.CANCELLED)

    @reaching
    def deliver(
        self, name: str, endings: Sequence[Ending], parts: Sequence[LogPart]
    ) -> dict[int, str]:
        return registry.deliver(name, endings, parts)

    @reaching
    def register(self, registration: Registration) -> None:
        self.worker_id = registry.register(registration).pk
        self.boot_id = registration.boot_id

    @reaching
    def exchange(
        self, endings: Sequence[Ending], limit: int
    ) -> tuple[dict[int, str], list[Claimed]]:
        return registry.exchange(self.worker_id, self.boot_id, endings, limit, self.marks)

    @reaching
    def heartbeat(self, held: Mapping[int, int], *, draining: bool) -> Beat:
        return registry.heartbeat(self.worker_id, self.boot_id, held, draining=draining)

    @reaching
    def log(self, parts: Sequence[LogPart]) -> None:
        logs.append(self.worker_id, parts)

    @reaching
    def leave(self) -> None:
        registry.leave(self.worker_id, self.boot_id)
        self.listener.close()

    def listen(self) -> None:
        """What `fileno` gives tells of work at any time; the heartbeat goes on."""

    def listening_seconds(self) -> None:
        return None

    def told(self) -> None:
        return None

    def fileno(self) -> int | None:
        return self.listener.fileno()

    def heard(self) -> bool:
        return any(channel == wakeups.CANCELLED for channel, _ in self.listener.heard())
