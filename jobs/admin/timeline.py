"""A task's way through its states, as far as its rows tell it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from django.utils import timezone

from jobs.models import Attempt, Task
from jobs.states import TERMINAL, Status


@dataclass(frozen=True)
class Step:
    """`state` names the colour; it lasted from `at` for `lasted`, or lasts still if `open`."""

    state: str
    text: str
    at: datetime
    lasted: timedelta | None = None
    open: bool = False


def timeline(task: Task, attempts: Sequence[Attempt]) -> list[Step]:
    """Oldest first. `attempts` are those known, oldest first, with their workers."""
    marks: list[tuple[str, str, datetime]] = [(Status.PENDING, "submitted", task.created_at)]
    if task.run_after and task.run_after > task.created_at:
        marks.append((Status.PENDING, "not to run before", task.run_after))
    for attempt in attempts:
        where = f" on {attempt.worker}" if attempt.worker else ""
        marks += [
            (Status.IN_PROGRESS, f"attempt {attempt.number} started{where}", attempt.started_at),
            (attempt.outcome, _ended(attempt), attempt.ended_at),
        ]
    if task.status == Status.IN_PROGRESS and task.started_at:
        where = f" on {task.assigned_worker}" if task.assigned_worker else ""
        marks.append((task.status, f"attempt {task.attempt} started{where}", task.started_at))
    if task.cancel_requested_at:
        marks.append((Status.CANCELLED, "cancel asked for", task.cancel_requested_at))
    unrecorded = not attempts or attempts[-1].ended_at < (task.completed_at or task.updated_at)
    if task.status in (Status.CANCELLED, Status.FAILED) and task.completed_at and unrecorded:
        what = "deadline passed" if task.status == Status.FAILED else "cancelled"
        marks.append((task.status, what, task.completed_at))
    return _steps(sorted(marks, key=lambda mark: mark[2]), ended=task.status in TERMINAL)


def _ended(attempt: Attempt) -> str:
    if attempt.signal is not None:
        return f"{attempt.get_outcome_display().lower()}, signal {attempt.signal}"
    if attempt.exit_code is not None:
        return f"{attempt.get_outcome_display().lower()}, exit code {attempt.exit_code}"
    return attempt.get_outcome_display().lower()


def _steps(marks: Sequence[tuple[str, str, datetime]], *, ended: bool) -> list[Step]:
    steps = [
        Step(state, text, at, lasted=following[2] - at)
        for (state, text, at), following in pairwise(marks)
    ]
    state, text, at = marks[-1]
    lasted = None if ended else max(timezone.now() - at, timedelta())
    return [*steps, Step(state, text, at, lasted=lasted, open=not ended)]
