"""Plain values that go into the queue and come out of it.

Those that come by the hundred are tuples, which cost a fifth of a frozen dataclass to make.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.states import Kind, OnDuplicate, OnFailure, Outcome, Scope


class Parent(NamedTuple):
    """What a task depends on: a task of its own job by its key, or any other by its id."""

    task: str | int
    on_failure: str = OnFailure.CANCEL


class Unique(NamedTuple):
    """A key that one job at a time holds: until it has ended, and for `window_seconds` from its
    submission at least."""

    key: str
    scope: str = Scope.QUEUE
    window_seconds: float | None = None
    on_duplicate: str = OnDuplicate.REJECT


if TYPE_CHECKING:
    from jobs.spooled import Spooled


class TaskSpec(NamedTuple):
    """A task as its client describes it: `payload` is {"cmd": ...} or {"function": ...}.

    `key` is what other tasks of the job call it by in `depends_on`, `concurrency_key` by what a
    limit counts it. `retry` has the fields of jobs.api.retries.RetryRules; None: as the
    installation's settings say.
    """

    payload: dict[str, Any]
    kind: str = Kind.SHELL
    name: str = ""
    priority: int = 0
    requires: Sequence[str] = ()
    slots: int = 1
    run_after: datetime | None = None
    timeout_seconds: float | None = None
    max_retries: int = 0
    retry: dict[str, Any] | None = None
    deadline_seconds: float | None = None
    key: str = ""
    depends_on: Sequence[Parent | str | int] = ()
    concurrency_key: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec:
    name: str
    tasks: "Sequence[TaskSpec] | Spooled"
    queue: str = "default"
    labels: dict[str, Any] = field(default_factory=dict)
    unique: Unique | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """What a policy may score a task by. Time is in microseconds since the epoch."""

    priority: int
    available_at_us: int
    queue: str
    name: str
    kind: str


class Claimed(NamedTuple):
    """A task that a worker has just claimed, with all it needs to run it: the columns of
    jobs/sql/claim.sql."""

    task_id: int
    job_id: int
    name: str
    kind: str
    payload: dict[str, Any]
    attempt: int
    fencing_token: int
    timeout_seconds: float | None
    claimed_at: datetime
    slots: int = 1


class Ending(NamedTuple):
    """How an attempt ended, as its worker (or recovery) reports it."""

    task_id: int
    fencing_token: int
    outcome: str = Outcome.DONE
    exit_code: int | None = None
    signal: int | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    error: str = ""
    result: str = ""
    output: str = ""


class LogPart(NamedTuple):
    """A stretch of an attempt's output; `start` is its byte offset in its stream."""

    task_id: int
    fencing_token: int
    stream: str
    start: int
    data: bytes
