"""What a task means to the operating system, and what its end means to the queue.

No database and no network here: a claimed task becomes a command with its environment; what the
guard says of its end becomes a report.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings

from dtsproject.conf import conf
from jobs.secrets import variables
from jobs.specs import Claimed, Ending
from jobs.states import Kind, Outcome
from workers.capture import REPLACEMENT, Capture
from workers.handlers import resolve
from workers.processes import Ended

SECRET_PREFIXES = ("DTS_", "DJANGO_", "PG")
SECRET_NAMES = ("DATABASE_URL", "SECRET_KEY")

OUTCOMES = {
    "timed_out": Outcome.TIMED_OUT,
    "cancelled": Outcome.CANCELLED,
    "released": Outcome.RELEASED,
    "lease_lost": Outcome.RELEASED,
    "guard_died": Outcome.LOST,
}


@dataclass(frozen=True, kw_only=True)
class Command:
    argv: list[str]
    env: dict[str, str]
    cwd: str | None
    stdin: bytes
    wants_result: bool


def command(task: Claimed, boot_id: UUID, environment: Mapping[str, str]) -> Command:
    """How to run the task, over the worker's `environment`. Its payload is {"cmd", "env", "cwd",
    "stdin"} for a shell task, {"function", "args", "kwargs"} for a Python one, which runs in a
    process of its own."""
    env = {
        **environment,
        **variables(task.payload),
        "DTS_TASK_ID": str(task.task_id),
        "DTS_JOB_ID": str(task.job_id),
        "DTS_ATTEMPT": str(task.attempt),
        "DTS_FENCING_TOKEN": str(task.fencing_token),
        "DTS_BOOT_ID": str(boot_id),
    }
    if task.kind == Kind.PYTHON:
        return Command(
            argv=[sys.executable, "-m", "workers.handlers"],
            env=env,
            cwd=str(settings.BASE_DIR),
            stdin=json.dumps(task.payload).encode(),
            wants_result=True,
        )
    return Command(
        argv=["/bin/sh", "-c", task.payload["cmd"]],
        env=env,
        cwd=task.payload.get("cwd"),
        stdin=task.payload.get("stdin", "").encode(),
        wants_result=False,
    )


def base_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The worker's own environment without what would give its tasks the database."""
    passed = {name.strip() for name in conf().pass_environment.split(",")}
    return {
        name: value
        for name, value in environ.items()
        if name in passed or not (name in SECRET_NAMES or name.startswith(SECRET_PREFIXES))
    }


def ending(task: Claimed, ended: Ended, captured: Mapping[str, Capture]) -> Ending:
    """The report on an attempt that the guard confirmed dead."""
    outcome = OUTCOMES.get(ended.reason or "")
    if outcome is None:
        outcome = Outcome.DONE if ended.exit_code == 0 else Outcome.FAILED
    error = "" if outcome == Outcome.DONE else explain(task, ended)
    texts = {name: capture.text() for name, capture in captured.items()}
    result = texts.get("result") or texts["stdout"]
    if outcome != Outcome.DONE:
        result = "\n".join(filter(None, [error, texts["stderr"]]))
    return Ending(
        task_id=task.task_id,
        fencing_token=task.fencing_token,
        outcome=outcome,
        exit_code=ended.exit_code,
        signal=ended.signal,
        cpu_seconds=ended.cpu_seconds,
        peak_memory_bytes=ended.peak_memory_bytes,
        error=error,
        result=result,
        output="\n".join(filter(None, [texts["stdout"], texts["stderr"]])),
    )


def unstarted(task: Claimed, reason: str) -> Ending:
    """The report on a task that was claimed and never started."""
    return Ending(
        task_id=task.task_id,
        fencing_token=task.fencing_token,
        outcome=OUTCOMES[reason],
        error="given back before it started",
    )


def call(task: Claimed) -> Ending:
    """Runs a Python task here and now, in the caller's thread."""
    try:
        function = resolve(task.payload["function"])
        value = function(*task.payload.get("args", ()), **task.payload.get("kwargs", {}))
        outcome, error, result = Outcome.DONE, "", json.dumps(value)
    except Exception as raised:
        outcome, result = Outcome.FAILED, traceback.format_exc()
        error = f"{type(raised).__name__}: {raised}"
    return Ending(
        task_id=task.task_id,
        fencing_token=task.fencing_token,
        outcome=outcome,
        error=error.replace("\0", REPLACEMENT),
        result=result.replace("\0", REPLACEMENT),
    )


def explain(task: Claimed, ended: Ended) -> str:
    """Why the attempt did not succeed, in a few words for a person."""
    match ended.reason:
        case "timed_out":
            return f"timed out after {task.timeout_seconds:g} s"
        case "lease_lost":
            return "stopped: the worker could not renew its lease"
        case "guard_died":
            return "the worker's guard died under it"
        case "cancelled" | "released":
            return ended.reason
    if ended.error:
        return ended.error
    if ended.signal:
        return f"killed by {signal.Signals(ended.signal).name}"
    return f"exit code {ended.exit_code}"
