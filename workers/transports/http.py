"""Through the API's door for workers, with a token and no database."""

import base64
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from dtsproject.conf import adopt, conf
from jobs.specs import Claimed, Ending, LogPart
from workers.registry import Beat, Registration, Superseded
from workers.transports.link import ANSWER_SECONDS, Link
from workers.transports.wait import Wait

WORKERS = "/api/v1/workers"
TERMS = ("lease_seconds", "heartbeat_seconds", "kill_grace_seconds")
# A request may have 32 MB; a character may become six of JSON.
MOST_CHARACTERS = 4_000_000
MOST_RECORDS = 5_000

Record = TypeVar("Record", Ending, LogPart)


class HttpTransport:
    """Asks `server` with what `token` gives at that moment, over a connection of each thread's own.

    `former_boot_id` is that of this worker's last start here, whose spool it may deliver.
    """

    worker_id: int
    boot_id: UUID

    def __init__(
        self, server: str, token: Callable[[], str], former_boot_id: UUID | None = None
    ) -> None:
        self.server = server
        self.token = token
        self.former_boot_id = former_boot_id
        self._of_thread = threading.local()
        self._wait = Wait(Link(server, token))

    @property
    def link(self) -> Link:
        if not hasattr(self._of_thread, "link"):
            self._of_thread.link = Link(self.server, self.token)
        link: Link = self._of_thread.link
        return link

    def deliver(
        self, name: str, endings: Sequence[Ending], parts: Sequence[LogPart]
    ) -> dict[int, str]:
        if self.former_boot_id is None:
            return {}
        former = {"name": name, "boot_id": str(self.former_boot_id)}
        states: dict[int, str] = {}
        try:
            for some in batches(parts):
                self.link.post(f"{WORKERS}/deliver", {**former, "parts": [*map(part, some)]})
            for ended in batches(endings):
                body = {**former, "endings": [*map(ending, ended)]}
                states |= accepted(self.link.post(f"{WORKERS}/deliver", body))
        except Superseded:
            pass  # what it held was taken back
        return states

    def register(self, registration: Registration) -> None:
        body = asdict(registration) | {"boot_id": str(registration.boot_id)}
        answer = self.link.post(WORKERS, body)
        adopt({name: answer[name] for name in TERMS})
        self.worker_id, self.boot_id = answer["id"], registration.boot_id

    def exchange(
        self, endings: Sequence[Ending], limit: int
    ) -> tuple[dict[int, str], list[Claimed]]:
        *full, last = [*batches(endings)] or [[]]
        states: dict[int, str] = {}
        for some in full:
            states |= accepted(self._say("exchange", {"endings": [*map(ending, some)], "limit": 0}))
        answer = self._say("exchange", {"endings": [*map(ending, last)], "limit": limit})
        return states | accepted(answer), [*map(claimed, answer["tasks"])]

    def heartbeat(self, held: Mapping[int, int], *, draining: bool) -> Beat:
        named = [{"task_id": task, "fencing_token": token} for task, token in held.items()]
        # Another try must be possible before the lease is over.
        seconds = min(ANSWER_SECONDS, conf().lease_seconds / 3)
        answer = self._say("heartbeat", {"held": named, "draining": draining}, seconds)
        return beat(answer)

    def log(self, parts: Sequence[LogPart]) -> None:
        for some in batches(parts):
            self._say("log", {"parts": [*map(part, some)]})

    def leave(self) -> None:
        self._wait.end()
        self._say("leave", {})

    def listen(self) -> None:
        path = f"{WORKERS}/{self.worker_id}/heartbeat"
        self._wait.begin(path, {"boot_id": str(self.boot_id)})

    def listening_seconds(self) -> float | None:
        return self._wait.seconds()

    def told(self) -> tuple[float, Beat] | None:
        answer = self._wait.take()
        return (self._wait.asked_at, beat(answer)) if answer else None

    def fileno(self) -> int | None:
        return self._wait.fileno()

    def heard(self) -> bool:
        self._wait.notice()
        return False

    def _say(self, verb: str, body: Mapping[str, Any], seconds: float = ANSWER_SECONDS) -> Any:
        path = f"{WORKERS}/{self.worker_id}/{verb}"
        return self.link.post(path, {"boot_id": str(self.boot_id), **body}, seconds)


def batches(records: Sequence[Record]) -> Iterator[list[Record]]:
    """The records in order, as many at once as one request takes."""
    batch: list[Record] = []
    size = 0
    for record in records:
        if batch and (size > MOST_CHARACTERS or len(batch) == MOST_RECORDS):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += sum(len(value) for value in record if isinstance(value, str | bytes))
    if batch:
        yield batch


def ending(record: Ending) -> dict[str, Any]:
    """As the door takes it, without what is as ever."""
    usual = Ending._field_defaults
    given = {name: value for name, value in record._asdict().items() if value != usual.get(name)}
    return given | {"outcome": str(record.outcome)}


def part(record: LogPart) -> dict[str, Any]:
    return record._asdict() | {"data": base64.b64encode(record.data).decode()}


def beat(answer: Mapping[str, Any]) -> Beat:
    return Beat(**{name: answer[name] for name in ("state", "lost", "cancelled", "ready")})


def accepted(answer: Mapping[str, Any]) -> dict[int, str]:
    """The new state of each task whose ending was recorded."""
    return {it["task_id"]: it["status"] for it in answer["results"] if it["accepted"]}


def claimed(task: Mapping[str, Any]) -> Claimed:
    known = {name: task[name] for name in Claimed._fields}
    return Claimed(**known | {"claimed_at": datetime.fromisoformat(task["claimed_at"])})
