"""Work for the queue, made through its own verbs."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

from django.db import connection, transaction
from django.db.models import F

from dtsproject.postgresql.base import Connection
from jobs import queue
from jobs.models import Task
from jobs.specs import Claimed, Ending, JobSpec, TaskSpec
from jobs.states import Outcome
from scheduling import schedules
from scheduling.models import Schedule
from scheduling.scheduler import Scheduler
from workers import registry
from workers.models import Worker


def submit(*tasks: TaskSpec | str, **job) -> list[Task]:
    """The tasks of a new job; a string is a shell command."""
    specs = [task if isinstance(task, TaskSpec) else shell(task) for task in tasks]
    made = queue.submit(JobSpec(name=job.pop("name", "test"), tasks=specs, **job))
    return list(made.tasks.order_by("pk"))


def shell(cmd: str, **task) -> TaskSpec:
    return TaskSpec(payload={"cmd": cmd}, **task)


def register(name: str = "w1", *, slots: int = 10, **more) -> Worker:
    return registry.register(
        registry.Registration(
            name=name,
            boot_id=more.pop("boot_id", None) or uuid.uuid4(),
            machine_id=more.pop("machine_id", "m1"),
            slots=slots,
            **more,
        )
    )


def promote() -> int:
    return Scheduler().promote()


def claim(worker: Worker, limit: int = 10) -> list[Claimed]:
    return queue.claim(worker_id=worker.pk, boot_id=worker.boot_id, limit=limit)


def ended(task: Claimed, outcome: Outcome = Outcome.DONE, **more) -> Ending:
    return Ending(task_id=task.task_id, fencing_token=task.fencing_token, outcome=outcome, **more)


def running(*commands: TaskSpec | str, worker: Worker | None = None) -> list[Claimed]:
    """Submitted, promoted and claimed by `worker` (a new one by default)."""
    worker = worker or register()
    submit(*commands)
    promote()
    return claim(worker)


@contextmanager
def keys_locked() -> Iterator[Callable[[], bool]]:
    """Holds up whoever keeps an idempotency key, at the last statement of a submit.

    Gives a function that says whether somebody waits.
    """
    with Connection.connect(**connection.get_connection_params()) as held:
        held.execute("LOCK TABLE idempotency_keys IN SHARE MODE")

        def waiting() -> bool:
            query = "SELECT FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
            return held.execute(query, ["idempotency_keys"]).rowcount > 0

        yield waiting


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Polls until the condition holds. Raises AssertionError when it does not in time."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError("it did not come to pass in time")
        time.sleep(0.02)


def scheduled(cron: str = "* * * * *", *, back: timedelta | None = None, **values) -> Schedule:
    """A new schedule; `back` moves its next time back, as if all schedulers had been away."""
    values.setdefault("name", "every-minute")
    values.setdefault("template", {"name": "{schedule}", "tasks": [{"payload": {"cmd": "true"}}]})
    with transaction.atomic():
        made = schedules.create({"cron": cron, **values}, created_by="tests")
    if back is not None:
        Schedule.objects.filter(pk=made.pk).update(next_run_at=F("next_run_at") - back)
        made.refresh_from_db()
    return made


def begin(*verbs: Callable[[], object]) -> list[Callable[[], object]]:
    """Runs each verb on a connection of its own in a transaction that stays open.

    Gives a function for each that commits it and waits for that. The first has run when the second
    is started; a verb may wait for another's commit.
    """
    commits: list[Callable[[], object]] = []
    for verb in verbs:
        ran, commit, pool = threading.Event(), threading.Event(), ThreadPoolExecutor(1)

        def work(verb=verb, ran=ran, commit=commit) -> None:
            try:
                with transaction.atomic():
                    verb()
                    ran.set()
                    commit.wait(20)
            finally:
                connection.close()

        future = pool.submit(work)
        wait_until(lambda ran=ran, future=future: ran.is_set() or future.done() or blocked())

        def finish(commit=commit, future=future, pool=pool) -> None:
            commit.set()
            future.result(20)
            pool.shutdown()

        commits.append(finish)
    return commits


def blocked() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_locks WHERE NOT granted")
        return cursor.rowcount > 0
