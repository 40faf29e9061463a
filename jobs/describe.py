"""Tasks and jobs in words and spans of time."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from dtsproject import show
from jobs.counts import Progress
from jobs.models import Attempt, Task
from jobs.states import Kind, Outcome, Status


def command(task: Task) -> str:
    """What the task runs: its shell command, or its function with its arguments."""
    payload = task.payload if isinstance(task.payload, dict) else {}
    if task.kind == Kind.SHELL:
        return str(payload.get("cmd", ""))
    args = [json.dumps(arg) for arg in payload.get("args") or []]
    args += [f"{key}={json.dumps(arg)}" for key, arg in (payload.get("kwargs") or {}).items()]
    return f"{payload.get('function', '')}({', '.join(args)})"


def title(task: Task) -> str:
    """Its name, else the first line of what it runs."""
    text = task.name or next(iter(command(task).strip().splitlines()), "")
    return Truncator(text).chars(60)


def rules(retry: Mapping[str, Any]) -> str:
    """A task's retry rules: `linear backoff from 5 s up to 1 min, only after 75, timeout`."""
    parts = []
    if retry.keys() & {"backoff", "base_seconds", "ceiling_seconds"}:
        parts.append(f"{retry.get('backoff', 'exponential')} backoff")
        if "base_seconds" in retry:
            parts[0] += f" from {show.duration(retry['base_seconds'])}"
        if "ceiling_seconds" in retry:
            parts[0] += f" up to {show.duration(retry['ceiling_seconds'])}"
    for name, words in (("retry_on", "only after"), ("fail_on", "never after")):
        if name in retry:
            parts.append(f"{words} {', '.join(map(str, retry[name]))}")
    if retry.get("elsewhere"):
        parts.append("on another worker first")
    return ", ".join(parts)


def failure(attempt: Attempt) -> str:
    """How the attempt ended: `attempt 2 failed with exit code 75`."""
    ended = f"attempt {attempt.number} {show.words(attempt.outcome)}"
    if attempt.outcome != Outcome.FAILED:
        return ended
    if attempt.signal is not None:
        return f"{ended} by signal {attempt.signal}"
    return ended if attempt.exit_code is None else f"{ended} with exit code {attempt.exit_code}"


def available_at(task: Task) -> datetime:
    """When the task first could have run, had there been a free worker."""
    return max(task.created_at, task.run_after or task.created_at)


def waited(task: Task) -> timedelta | None:
    """How long the task waited for its first attempt, or has waited up to now.

    After a retry its row no longer says since when it waits, unless it has not been queued yet.
    """
    if task.attempt and task.status == Status.PENDING:
        return timezone.now() - task.updated_at
    if task.attempt == 0 or (task.attempt == 1 and task.started_at):
        if task.status == Status.CANCELLED and task.attempt == 0:
            return (task.completed_at or task.updated_at) - task.created_at
        until = task.started_at if task.attempt else timezone.now()
        return max((until or timezone.now()) - available_at(task), timedelta())
    return None


def ran(task: Task) -> timedelta | None:
    """How long the last attempt took, or has taken up to now."""
    if task.started_at is None or task.status in (Status.PENDING, Status.QUEUED):
        return None
    until = timezone.now() if task.status == Status.IN_PROGRESS else task.completed_at
    # Cancelled while it waited for a retry: it ran before, but not up to that moment.
    return until - task.started_at if until and task.assigned_worker_id else None


def took(attempt: Attempt) -> timedelta:
    return attempt.ended_at - attempt.started_at


def far(counts: Progress) -> SafeString:
    """The bar of a job and its meaning in words."""
    said = f"{counts[Status.DONE]}/{counts.total}"
    if failed := counts[Status.FAILED]:
        said += f", {failed} failed"
    if counts.capped:
        return format_html('<span class="dts-far">{} done; open it to count</span>', said)
    return format_html('<span class="dts-far">{} {}</span>', show.bar(counts.parts), said)
