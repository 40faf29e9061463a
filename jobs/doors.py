"""Where `manage.py submit` hands in a job and sees it through: the database, or a server's API."""

import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from django.conf import settings

from dts_client import LATER, ApiError, Client, Unreachable
from jobs import intake, placement
from jobs.api.submissions import job_spec
from jobs.follow import POLL_SECONDS, follow
from jobs.models import Task
from jobs.states import TERMINAL, Status

SLOWEST_POLL_SECONDS = 2.0
Counts = Mapping[str, int]


class End(NamedTuple):
    """How a task ended."""

    title: str
    status: str
    seconds: float | None
    output: str


class Submitted(NamedTuple):
    job_id: int
    tasks: int
    warnings: Sequence[Mapping[str, Any]]


class Door(Protocol):
    def submit(self, described: object, key: str | None) -> Submitted:
        """Hands in the job that is described as for the API."""

    def follow(self, job_id: int) -> Iterator[Counts | None]:
        """How many of its tasks are in each state, now and then up to the end; None: no answer."""

    def ends(self, job_id: int, *, not_done: bool, limit: int) -> Iterable[End]:
        """Its first tasks, or the first of those that are not done."""

    def where(self, job_id: int) -> str:
        """The URL of its tasks."""


class DatabaseDoor:
    def __init__(self, user: str) -> None:
        self.user = user

    def submit(self, described: object, key: str | None) -> Submitted:
        spec = job_spec(described)
        warned = placement.warnings(spec)
        same = intake.fingerprint(described)
        known = None if key is None else intake.Key.of(key, f"command {self.user}", same)
        job, _ = intake.take_in(spec, submitted_by=self.user, key=known)
        if job.joined:
            return Submitted(job.pk, Task.objects.filter(job=job).count(), [])
        return Submitted(job.pk, len(spec.tasks), warned)

    def follow(self, job_id: int) -> Iterator[Counts | None]:
        for progress in follow(job_id):
            yield {status: progress[status].value for status in Status} if progress else None

    def ends(self, job_id: int, *, not_done: bool, limit: int) -> Iterable[End]:
        tasks = Task.objects.filter(job=job_id).order_by("pk")
        if not_done:
            tasks = tasks.exclude(final_status=Status.DONE)
        for task in tasks[:limit]:
            seconds = took(task.started_at, task.completed_at)
            yield End(str(task), task.status, seconds, task.result_text)

    def where(self, job_id: int) -> str:
        return f"http://{settings.ORCH_HOST}:{settings.ORCH_PORT}/api/v1/jobs/{job_id}/tasks"


class ServerDoor:
    def __init__(self, client: Client) -> None:
        self.client = client

    def submit(self, described: object, key: str | None) -> Submitted:
        key = str(uuid.uuid4()) if key is None else key
        job = self.client.request("POST", "/jobs", described, {"Idempotency-Key": key})
        return Submitted(job["id"], sum(job["counts"].values()), job.get("warnings", []))

    def follow(self, job_id: int) -> Iterator[Counts | None]:
        pause = POLL_SECONDS
        while True:
            found = self._look(job_id)
            yield found and found["counts"]
            if found and found["state"] in TERMINAL:
                return
            time.sleep(pause)
            pause = min(1.2 * pause, SLOWEST_POLL_SECONDS)

    def _look(self, job_id: int) -> dict[str, Any] | None:
        try:
            return self.client.request("GET", f"/jobs/{job_id}", patience=0)
        except Unreachable:
            return None
        except ApiError as error:
            if error.status in LATER:
                return None
            raise

    def ends(self, job_id: int, *, not_done: bool, limit: int) -> Iterable[End]:
        filters = {"status": [Status.FAILED, Status.CANCELLED]} if not_done else {}
        newest_first = self.client.tasks(job_id, **filters)
        for task in reversed(deque(newest_first, limit)):
            times = (task[at] and datetime.fromisoformat(task[at]) for at in TIMES)
            title = f"{task['name'] or task['kind']} #{task['id']}"
            yield End(title, task["status"], took(*times), task["result_text"])

    def where(self, job_id: int) -> str:
        return f"{self.client.url}/api/v1/jobs/{job_id}/tasks"


TIMES = ("started_at", "completed_at")


def took(started_at: datetime | None, completed_at: datetime | None) -> float | None:
    if started_at is None or completed_at is None:
        return None
    return (completed_at - started_at).total_seconds()
