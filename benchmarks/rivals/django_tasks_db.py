"""django-tasks-db, the database backend of Django's own task interface
(https://github.com/RealOrangeOne/django-tasks)."""

import os
from collections.abc import Iterator

import benchlib
import django
from benchlib import CHURN_BATCH, PRIORITIES, URGENT_PRIORITY
from django.conf import settings

# A worker in this process, and the tasks' functions in its __main__, so one file is the project.
settings.configure(
    SECRET_KEY="only for a benchmark",  # noqa: S106
    USE_TZ=True,
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django_tasks",
        "django_tasks_db",
    ],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ.get("PGDATABASE", "postgres"),
            "CONN_MAX_AGE": None,
        }
    },
    TASKS={"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": ["default"]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import transaction  # noqa: E402
from django_tasks import task  # type: ignore[import-not-found]  # noqa: E402

AT_ONCE = 1_000
info = {
    "best": "db_worker --interval 0.01 --no-startup-delay; tasks are enqueued one by one, "
    f"{AT_ONCE:,} a transaction: it has no bulk enqueue",
    "pending": "SELECT EXISTS (SELECT FROM django_tasks_database_dbtaskresult"
    " WHERE status IN ('READY', 'RUNNING'))",
    "finished": """
        INSERT INTO django_tasks_database_dbtaskresult
        SELECT (jsonb_populate_record(
            NULL::django_tasks_database_dbtaskresult,
            to_jsonb(one) || jsonb_build_object('id', gen_random_uuid()))).*
        FROM (SELECT * FROM django_tasks_database_dbtaskresult LIMIT 1) one,
            generate_series(1, 1000000)""",
}


@task()
def noop(t: float = 0.0) -> None:
    benchlib.mark(t)


@task()
def shell() -> None:
    benchlib.shell()


def setup() -> None:
    call_command("migrate", verbosity=0)


def starts(n: int) -> Iterator[int]:
    """How many tasks go into each transaction."""
    for start in range(0, n, AT_ONCE):
        yield min(AT_ONCE, n - start)


def enqueue(n: int, kind: str) -> None:
    wanted = {"noop": noop, "shell": shell}[kind]
    for some in starts(n):
        with transaction.atomic():
            for _ in range(some):
                wanted.enqueue()


def enqueue_singly(n: int) -> None:
    for _ in range(n):
        noop.enqueue()


def urgent(now: float) -> None:
    noop.using(priority=URGENT_PRIORITY).enqueue(t=now)


@transaction.atomic
def many() -> None:
    for n in range(CHURN_BATCH):
        noop.using(priority=n % PRIORITIES).enqueue()


def worker(profile: str) -> None:
    call_command("db_worker", verbosity=0, interval=0.01, startup_delay=False)


benchlib.main(
    info,
    setup,
    lambda n, kind: benchlib.timed(lambda: enqueue(n, kind), n),
    lambda n: benchlib.timed(lambda: enqueue_singly(n), n),
    lambda seconds, step: benchlib.paced(seconds, step, urgent),
    worker,
    lambda seconds, backlog: benchlib.churned(seconds, backlog, many, urgent),
)
