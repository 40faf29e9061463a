"""What an attempt printed: in JSON, a stretch at a time, or as the bytes it is."""

import base64
import codecs
from typing import Any

from django.http import Http404

from jobs import logs
from jobs.models import Attempt, Task
from jobs.states import TERMINAL, Status

PART_BYTES = 64 * 1024


def log_part(
    task: Task, *, stream: str = "stdout", after: int = 0, attempt: int | None = None
) -> dict[str, Any]:
    """A stretch of what an attempt of the task (by default the last) printed.

    `task` was read before: if it had ended by then, so has its log. Raises Http404 for an attempt
    that is not there.
    """
    number = task.attempt if attempt is None else attempt
    data, position = logs.read(
        task.pk, _fencing_token(task, number), stream, after=after, limit=PART_BYTES
    )
    ended = _has_ended(task, number) and len(data) < PART_BYTES
    text, encoding, held_back = _as_text(data, final=ended)
    return {
        "attempt": number,
        "stream": stream,
        "encoding": encoding,
        "data": text,
        "next": position - held_back,
        "ended": ended,
        "status": task.status,
    }


def log_bytes(
    task: Task, *, stream: str = "stdout", attempt: int | None = None
) -> tuple[bytes, bool]:
    """All that is kept of it, and whether nothing more can follow. Raises Http404 as above."""
    number = task.attempt if attempt is None else attempt
    data = logs.kept(task.pk, _fencing_token(task, number), stream)
    return data, _has_ended(task, number)


def _has_ended(task: Task, number: int) -> bool:
    running = number == task.attempt and task.status == Status.IN_PROGRESS
    to_come = number == 0 and task.status not in TERMINAL
    return not (running or to_come)


def _fencing_token(task: Task, number: int) -> int:
    if number == task.attempt:
        return task.fencing_token
    token = (
        Attempt.objects.filter(task=task, number=number)
        .values_list("fencing_token", flat=True)
        .first()
    )
    if token is None:
        raise Http404
    return token


def _as_text(data: bytes, *, final: bool) -> tuple[str, str, int]:
    """The data as text, its encoding, and how many bytes of a character cut in two it leaves."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(data, final)
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), "base64", 0
    return text, "utf-8", len(decoder.getstate()[0])
