"""procrastinate (https://procrastinate.readthedocs.io)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import benchlib
import procrastinate  # type: ignore[import-not-found]
from benchlib import CHURN_BATCH, PRIORITIES, URGENT_PRIORITY

AT_ONCE = 10_000
info = {
    "best": "run_worker_async(concurrency=20), pool of 20",
    "pending": "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))",
    "finished": """
        ALTER TABLE procrastinate_jobs DISABLE TRIGGER USER;
        INSERT INTO procrastinate_jobs (queue_name, task_name, status, attempts)
        SELECT 'default', 'noop', 'succeeded', 1 FROM generate_series(1, 1000000);
        ALTER TABLE procrastinate_jobs ENABLE TRIGGER USER""",
}
app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=benchlib.DSN, max_size=20)
)


@app.task(name="noop")
async def noop(t: float = 0.0) -> None:
    benchlib.mark(t)


@app.task(name="shell")
async def shell() -> None:
    await benchlib.ashell()


def opened(work: Callable[[], Awaitable[object]]) -> None:
    async def run() -> None:
        async with app.open_async():
            await work()

    asyncio.run(run())


def setup() -> None:
    opened(lambda: app.schema_manager.apply_schema_async())


async def enqueue(n: int, kind: str) -> None:
    task = {"noop": noop, "shell": shell}[kind]
    for start in range(0, n, AT_ONCE):
        await task.batch_defer_async(*[{}] * min(AT_ONCE, n - start))


async def enqueue_singly(n: int) -> None:
    for _ in range(n):
        await noop.defer_async()


async def urgent(now: float) -> None:
    await noop.configure(priority=URGENT_PRIORITY).defer_async(t=now)


async def many() -> None:
    for priority in range(PRIORITIES):
        some: list[dict[str, float]] = [{}] * (CHURN_BATCH // PRIORITIES)
        await noop.configure(priority=priority).batch_defer_async(*some)


def worker(profile: str) -> None:
    logging.disable(logging.INFO)
    opened(lambda: app.run_worker_async(concurrency=20))


benchlib.main(
    info,
    setup,
    lambda n, kind: opened(lambda: benchlib.atimed(enqueue(n, kind), n)),
    lambda n: opened(lambda: benchlib.atimed(enqueue_singly(n), n)),
    lambda seconds, step: opened(lambda: benchlib.apaced(seconds, step, urgent)),
    worker,
    lambda seconds, backlog: opened(lambda: benchlib.achurned(seconds, backlog, many, urgent)),
)
