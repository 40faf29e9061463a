"""pgqueuer (https://github.com/janbjorge/pgqueuer)."""

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg  # type: ignore[import-not-found]
import benchlib
import uvloop  # type: ignore[import-not-found]
from benchlib import CHURN_BATCH, PRIORITIES, URGENT_PRIORITY
from pgqueuer import PgQueuer  # type: ignore[import-not-found]
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver  # type: ignore[import-not-found]
from pgqueuer.queries import Queries  # type: ignore[import-not-found]

AT_ONCE = 10_000
info = {
    "best": "run(batch_size=100), uvloop, asyncpg pool of 2 to 8",
    "pending": "SELECT EXISTS (SELECT FROM pgqueuer)",
    "finished": """
        INSERT INTO pgqueuer_log (job_id, status, priority, entrypoint, aggregated)
        SELECT n, 'successful', 0, 'noop', true FROM generate_series(1, 1000000) n""",
}


def setup() -> None:
    subprocess.run([sys.executable, "-m", "pgqueuer", "install"], check=True)


def connected(work: Callable[[Any], Awaitable[object]]) -> None:
    async def run() -> None:
        await work(Queries(AsyncpgDriver(await asyncpg.connect(benchlib.DSN))))

    uvloop.run(run())


async def enqueue(queries: Any, n: int, kind: str) -> None:
    for start in range(0, n, AT_ONCE):
        some = min(AT_ONCE, n - start)
        await queries.enqueue([kind] * some, [None] * some, [0] * some)


async def enqueue_singly(queries: Any, n: int) -> None:
    for _ in range(n):
        await queries.enqueue("noop", None)


def urgent(queries: Any) -> Callable[[float], Awaitable[Any]]:
    return lambda now: queries.enqueue("noop", str(now).encode(), URGENT_PRIORITY)


def many(queries: Any) -> Callable[[], Awaitable[Any]]:
    priorities = [n % PRIORITIES for n in range(CHURN_BATCH)]
    return lambda: queries.enqueue(["noop"] * CHURN_BATCH, [None] * CHURN_BATCH, priorities)


def worker(profile: str) -> None:
    logging.disable(logging.INFO)
    settings = {"batch_size": 4, "max_concurrent_tasks": 8} if profile == "shell" else {}

    async def run() -> None:
        pool = await asyncpg.create_pool(benchlib.DSN, min_size=2, max_size=8)
        queuer = PgQueuer(AsyncpgPoolDriver(pool))

        @queuer.entrypoint("noop")
        async def noop(job: Any) -> None:
            benchlib.mark(float(job.payload) if job.payload else 0.0)

        @queuer.entrypoint("shell")
        async def shell(job: Any) -> None:
            await benchlib.ashell()

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, queuer.shutdown.set)
        await queuer.run(**({"batch_size": 100} | settings))

    uvloop.run(run())


benchlib.main(
    info,
    setup,
    lambda n, kind: connected(lambda queries: benchlib.atimed(enqueue(queries, n, kind), n)),
    lambda n: connected(lambda queries: benchlib.atimed(enqueue_singly(queries, n), n)),
    lambda seconds, step: connected(lambda q: benchlib.apaced(seconds, step, urgent(q))),
    worker,
    lambda seconds, n: connected(lambda q: benchlib.achurned(seconds, n, many(q), urgent(q))),
)
