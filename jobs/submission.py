"""The first verb: a job and its tasks come into being, whole or not at all."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

from django.db import transaction
from psycopg import Cursor

from dtsproject import wakeups
from dtsproject.conf import conf, load
from dtsproject.errors import Refusal
from jobs import audit, statements, uniqueness
from jobs.cancelling import cancel_job
from jobs.dependencies import Web
from jobs.graph import Edge, edges_of
from jobs.labels import LaneKey, lane_key
from jobs.models import Job, Lane, Queue
from jobs.specs import Candidate, JobSpec, TaskSpec, Unique
from jobs.spooled import BATCH, Spooled
from jobs.states import OnDuplicate

MAX_LANES = 200
# What is sent and not yet stored is kept in memory.
MOST_UNDER_WAY = 4


class TooManyLanes(Refusal):
    status, code, title = 422, "too_many_lanes", "Too many distinct requirements"


class LanesMissing(Exception):
    """The keys of lanes that there are not yet."""


def submit(spec: JobSpec, *, submitted_by: str = "") -> Job:
    """Stores a job and all its tasks, or nothing. Raises TooManyLanes and BadDependency.

    Where another job holds its unique key: raises Duplicate, or returns that job, `joined`, or
    cancels what of that has not started, as it says.
    """
    if spec.unique:
        return _submit_unique(spec, spec.unique, submitted_by)
    job, scores = _store_with_lanes(spec, submitted_by)
    wakeups.notify(wakeups.SUBMITTED, str(min(scores.values())))
    return job


def _submit_unique(spec: JobSpec, unique: Unique, submitted_by: str) -> Job:
    with transaction.atomic():
        holder = uniqueness.lock(unique, spec.queue)
        if holder.holds and unique.on_duplicate == OnDuplicate.REJECT:
            raise uniqueness.refusal(unique, holder.job_id)
        if holder.holds and unique.on_duplicate == OnDuplicate.JOIN:
            return uniqueness.joined(holder.job_id)
        if holder.holds:
            cancel_job(holder.job_id, running=False)
        job, scores = _store_with_lanes(spec, submitted_by)
        uniqueness.keep(unique, job)
        if holder.holds:
            audit.record(submitted_by, "replace", [f"job {holder.job_id}"], f"job {job.pk}")
    wakeups.notify(wakeups.SUBMITTED, str(min(scores.values())))
    return job


def submit_all(jobs: Sequence[tuple[JobSpec, str]]) -> list[Job]:
    """Stores these jobs, each with who submits it, all or nothing: two round trips, one wake-up.

    Raises TooManyLanes, BadDependency and Duplicate.
    """
    if any(spec.unique for spec, _ in jobs):
        with transaction.atomic():
            return [submit(spec, submitted_by=by) for spec, by in jobs]
    with transaction.atomic():
        try:
            with statements.transaction():
                sent = [_send_job(spec, submitted_by) for spec, submitted_by in jobs]
                stored = [
                    _store_tasks(spec, Needs.of(spec.tasks), *_begun(cursor, spec, submitted_by))
                    for (spec, submitted_by), cursor in zip(jobs, sent, strict=True)
                ]
        except LanesMissing:
            stored = [_store_with_lanes(spec, submitted_by) for spec, submitted_by in jobs]
    wakeups.notify(wakeups.SUBMITTED, str(min(min(scores.values()) for _, scores in stored)))
    return [job for job, _ in stored]


class Needs(NamedTuple):
    """What the tasks of a job need beside their rows."""

    lanes: set[LaneKey]
    edges: list[Edge]

    @classmethod
    def of(cls, tasks: Sequence[TaskSpec] | Spooled) -> "Needs":
        if isinstance(tasks, Spooled):
            edges = edges_of(list(chain.from_iterable(tasks.batches()))) if tasks.linked else []
            return cls(tasks.lanes, edges)
        return cls(lanes_of(tasks), edges_of(tasks))


def lanes_of(tasks: Sequence[TaskSpec] | Spooled) -> set[LaneKey]:
    """The lanes into which tasks go."""
    if isinstance(tasks, Spooled):
        return tasks.lanes
    return {lane_key(task.requires, task.slots) for task in tasks}


def _batches(tasks: Sequence[TaskSpec] | Spooled) -> Iterator[Sequence[TaskSpec]]:
    if isinstance(tasks, Spooled):
        return tasks.batches()
    return (tasks[start : start + BATCH] for start in range(0, len(tasks), BATCH))


def _store_with_lanes(spec: JobSpec, submitted_by: str) -> tuple[Job, "Scores"]:
    """The stored job and its tasks' scores. Raises TooManyLanes and BadDependency."""
    needs = Needs.of(spec.tasks)
    try:
        return _store(spec, submitted_by, needs)
    except LanesMissing as missing:
        _make_lanes(spec.queue, missing.args)
        return _store(spec, submitted_by, needs)


def _store(spec: JobSpec, submitted_by: str, needs: Needs) -> tuple[Job, "Scores"]:
    """The stored job and its tasks' scores. Raises LanesMissing."""
    with statements.transaction():
        sent = _send_job(spec, submitted_by)
        return _store_tasks(spec, needs, *_begun(sent, spec, submitted_by))


def _store_tasks(
    spec: JobSpec, needs: Needs, job: Job, lanes: Mapping[LaneKey, int]
) -> tuple[Job, "Scores"]:
    scores = Scores(load(conf().policy), job)
    if missing := needs.lanes - lanes.keys():
        raise LanesMissing(*sorted(missing))
    web, start = Web(len(spec.tasks), needs.edges), 0
    # Each batch is stored while the next is made ready.
    for number, batch in enumerate(_batches(spec.tasks), 1):
        parameters = _submit_parameters(job, lanes, batch, scores)
        for name, column in web.columns(start, start + len(batch)).items():
            parameters |= alike(name, column)
        parameters["id"] = web.ids[start : start + len(batch)]
        start += len(batch)
        statements.execute("submit", parameters)
        if number % MOST_UNDER_WAY == 0:
            statements.catch_up()
    web.store()
    return job, scores


def _send_job(spec: JobSpec, submitted_by: str) -> Cursor:
    given = {
        "name": spec.name,
        "queue": spec.queue,
        "submitted_by": submitted_by,
        "labels": json.dumps(spec.labels),
        "unique": json.dumps(spec.unique._asdict()) if spec.unique else None,
    }
    return statements.execute("begin_job", given)


def _begun(sent: Cursor, spec: JobSpec, submitted_by: str) -> tuple[Job, dict[LaneKey, int]]:
    """The job's row, and the id of each lane that its queue has."""
    rows = sent.fetchall()
    (job_id, created_at, *_), *_ = rows
    job = Job(
        pk=job_id,
        name=spec.name,
        queue=spec.queue,
        labels=spec.labels,
        unique=spec.unique and spec.unique._asdict(),
        submitted_by=submitted_by,
        created_at=created_at,
    )
    lanes = {
        (tuple(requires), slots): lane for *_, lane, requires, slots in rows if lane is not None
    }
    return job, lanes


def _make_lanes(queue: str, missing: Sequence[LaneKey]) -> None:
    wanted: list[dict[str, Any]] = [
        {"queue": queue, "requires": list(requires), "slots": slots} for requires, slots in missing
    ]
    if Lane.objects.count() + len(missing) > MAX_LANES:
        raise TooManyLanes(
            f"There may be {MAX_LANES} combinations of queue, requirements and slots; use one that "
            f"exists instead of {Lane(**wanted[0])}"
        )
    Queue.objects.get_or_create(name=queue)
    for lane in wanted:
        Lane.objects.get_or_create(**lane)


class Scores(dict):
    """The policy's score of each kind of task in a job, asked for once."""

    def __init__(self, policy: Any, job: Job) -> None:
        super().__init__()
        self.policy = policy
        self.job = job

    def __missing__(self, key: tuple[int, datetime | None, str, str]) -> int:
        priority, run_after, name, kind = key
        available_at = max(self.job.created_at, run_after or self.job.created_at)
        self[key] = score = self.policy.score(
            Candidate(
                priority=priority,
                available_at_us=int(available_at.timestamp() * 1_000_000),
                queue=self.job.queue,
                name=name,
                kind=kind,
            )
        )
        return score


def _submit_parameters(
    job: Job, lanes: Mapping[LaneKey, int], tasks: Sequence[TaskSpec], scores: Scores
) -> dict:
    sent = statements.columns(TaskSpec._fields, tasks)
    keys = zip(sent["priority"], sent["run_after"], sent["name"], sent["kind"], strict=True)
    return {
        "job_id": job.pk,
        "queue": job.queue,
        "created_at": job.created_at,
        "payload": list(map(json.dumps, sent["payload"])),
        "score": [scores[key] for key in keys],
        **alike("lane_id", [lanes[key] for key in map(lane_key, sent["requires"], sent["slots"])]),
        **alike("name", sent["name"]),
        **alike("kind", sent["kind"]),
        **alike("priority", sent["priority"]),
        **alike("run_after", sent["run_after"]),
        **alike("timeout_seconds", sent["timeout_seconds"]),
        **alike("max_retries", sent["max_retries"]),
        **alike(
            "retry", [rules if rules is None else json.dumps(rules) for rules in sent["retry"]]
        ),
        **alike("deadline_seconds", sent["deadline_seconds"]),
        **alike("key", sent["key"]),
        **alike("concurrency_key", sent["concurrency_key"]),
    }


def alike(name: str, column: list) -> dict[str, Any]:
    """A column as two parameters: one value if all are that, else an array."""
    if column.count(column[0]) == len(column):
        return {name: [], f"all_{name}": column[0]}
    return {name: column, f"all_{name}": None}
