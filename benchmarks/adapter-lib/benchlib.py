"""What an adapter's process needs: where the database is, the mark of a task, timing.

An adapter is called `adapter VERB ...` with a verb of `main`. Environment: BENCH_DSN, the
database as a URL (also as PGHOST, PGUSER, ...); BENCH_MARK, the file of marks.
Imports the standard library alone: rivals have a virtualenv of their own.
"""

import asyncio
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from typing import Any

DSN = os.environ.get("BENCH_DSN", "")
MARK = os.environ.get("BENCH_MARK", "")
RECORD = struct.Struct("dd")
SHELL = ["/bin/sh", "-c", "true"]
# Churn: tasks submitted at once, in ten priorities; and how often an urgent one.
CHURN_BATCH, PRIORITIES, URGENT_SECONDS = 500, 10, 0.1
URGENT_PRIORITY = 100


@cache
def _marks() -> int:
    return os.open(MARK, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def mark(submitted_at: float = 0.0) -> None:
    """Notes that a task ran: now, and when it was submitted (seconds since the epoch, or 0)."""
    os.write(_marks(), RECORD.pack(time.time(), submitted_at or 0.0))


def marked() -> int:
    """How many tasks have run."""
    return os.path.getsize(MARK) // RECORD.size if os.path.exists(MARK) else 0


def shell() -> None:
    """Runs the command of the shell benchmark and takes its output, as DTS does."""
    subprocess.run(SHELL, capture_output=True, check=True)
    mark()


async def ashell() -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*SHELL, stdout=pipe, stderr=pipe)
    await process.communicate()
    mark()


def say(n: int, seconds: float) -> None:
    print(f"ENQ {n} {seconds}", flush=True)


def timed(submit: Callable[[], object], n: int) -> None:
    began_at = time.perf_counter()
    submit()
    say(n, time.perf_counter() - began_at)


async def atimed(submit: Awaitable[object], n: int) -> None:
    began_at = time.perf_counter()
    await submit
    say(n, time.perf_counter() - began_at)


def paces(seconds: float, step: float) -> Iterator[float]:
    """Yields, for each task to be submitted now, how long to sleep after it."""
    began_at, n = time.time(), 0
    while time.time() - began_at < seconds:
        n += 1
        yield max(0.0, began_at + n * step - time.time())
    say(n, time.time() - began_at)


def paced(seconds: float, step: float, submit: Callable[[float], object]) -> None:
    """Submits a task, given the time, every `step` seconds."""
    for pause in paces(seconds, step):
        time.sleep(pause)
        submit(time.time())


async def apaced(seconds: float, step: float, submit: Callable[[float], Awaitable[Any]]) -> None:
    for pause in paces(seconds, step):
        await asyncio.sleep(pause)
        await submit(time.time())


def churns(seconds: float, backlog: int) -> Iterator[str]:
    """Yields what to do next so that about `backlog` tasks wait: `urgent`, `many` or `wait`."""
    until, submitted, urgent_at = time.time() + seconds, 0, 0.0
    before = marked()
    while (now := time.time()) < until:
        if now >= urgent_at:
            submitted, urgent_at = submitted + 1, now + URGENT_SECONDS
            yield "urgent"
        elif submitted - (marked() - before) < backlog:
            submitted += CHURN_BATCH
            yield "many"
        else:
            yield "wait"
    say(submitted, seconds)


def churned(
    seconds: float, backlog: int, many: Callable[[], Any], urgent: Callable[[float], Any]
) -> None:
    """Keeps the queue busy: `many` submits CHURN_BATCH tasks over PRIORITIES priorities."""
    for step in churns(seconds, backlog):
        if step == "urgent":
            urgent(time.time())
        elif step == "many":
            many()
        else:
            time.sleep(0.005)


async def achurned(
    seconds: float,
    backlog: int,
    many: Callable[[], Awaitable[Any]],
    urgent: Callable[[float], Awaitable[Any]],
) -> None:
    for step in churns(seconds, backlog):
        if step == "urgent":
            await urgent(time.time())
        elif step == "many":
            await many()
        else:
            await asyncio.sleep(0.005)


def main(
    info: dict[str, Any],
    setup: Callable[[], object],
    bulk: Callable[[int, str], object],
    single: Callable[[int], object],
    pace: Callable[[float, float], object],
    worker: Callable[[str], object],
    churn: Callable[[float, int], object] | None = None,
) -> None:
    """info | setup | bulk N KIND | single N | pace SECONDS STEP | worker PROFILE | churn
    SECONDS BACKLOG, where KIND is noop or shell and PROFILE best or shell."""
    match sys.argv[1:]:
        case ["info"]:
            print(json.dumps(info))
        case ["setup"]:
            setup()
        case ["bulk", n, kind]:
            bulk(int(n), kind)
        case ["single", n]:
            single(int(n))
        case ["pace", seconds, step]:
            pace(float(seconds), float(step))
        case ["worker", profile]:
            worker(profile)
        case ["churn", seconds, backlog] if churn:
            churn(float(seconds), int(backlog))
        case arguments:
            sys.exit(f"no such verb here: {' '.join(arguments)}")
