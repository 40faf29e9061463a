"""A job as a stream of lines (NDJSON): the first is the job without its tasks, each other a task.

It is read once, whatever its length in little memory: a batch of tasks is checked and put on disk,
then the next. Nothing is stored before all of it is known to be right.
"""

import hashlib
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from django.core.exceptions import RequestDataTooBig
from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.request import Request

from dtsproject import parsers, problems
from dtsproject.conf import conf
from dtsproject.errors import Refusal
from jobs.api.fields import StrictSerializer
from jobs.api.submissions import JobHead, TaskSubmission, job_spec_of
from jobs.backlog import Overloaded
from jobs.specs import JobSpec, TaskSpec
from jobs.spooled import BATCH, Spooled

MEDIA_TYPE = "application/x-ndjson"
MAX_BYTES = 256 * 1024 * 1024
MAX_LINE_BYTES = 4 * 1024 * 1024
BATCH_BYTES = 1024 * 1024
CHUNK_BYTES = 256 * 1024
# Each holds a thread for as long as its sender takes; a process has eight (gunicorn.conf.py).
places = threading.BoundedSemaphore(2)


class InvalidLines(Refusal):
    """`faults` are those of problems.faults, each with its `line`."""

    status, code, title = 400, "invalid", "The body is not valid"

    def __init__(self, faults: list[dict[str, Any]]) -> None:
        first, more = faults[0], f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
        text = f"line {first['line']}, {first['pointer']}: {first['detail']}{more}"
        super().__init__(text, errors=faults[: problems.MAX_ERRORS])


class Lines:
    """The lines of a request's body, each with its number, from 1; blank ones are left out.

    Raises RequestDataTooBig, and ParseError where the body ends before its length.
    """

    def __init__(self, request: Request) -> None:
        self._stream = request.stream
        self._left = int(request.META.get("CONTENT_LENGTH") or 0)
        self._hash = hashlib.sha256()
        if self._left > MAX_BYTES:
            raise RequestDataTooBig

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        number, rest = 0, b""
        while chunk := self._read():
            *whole, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                raise RequestDataTooBig
            for number, line in enumerate(whole, number + 1):  # noqa: B020 - goes on counting
                if line.strip():
                    yield number, line
        if rest.strip():
            yield number + 1, rest

    def finish(self) -> str:
        """Reads what is left, or a client that still sends would not hear the answer; returns the
        fingerprint of all."""
        while self._read():
            pass
        return self._hash.hexdigest()

    def _read(self) -> bytes:
        chunk = self._stream.read(CHUNK_BYTES) if self._stream and self._left else b""
        if self._left and not chunk:
            raise ParseError("The body ended before its Content-Length.")
        self._left -= len(chunk)
        self._hash.update(chunk)
        return chunk


@contextmanager
def place() -> Iterator[None]:
    """Around all that is done with such a job. Raises Overloaded."""
    if not places.acquire(blocking=False):
        raise Overloaded("This server takes two jobs of lines at once; submit again later")
    try:
        yield
    finally:
        places.release()


def job_of(lines: Lines) -> JobSpec:
    """The job that the lines describe. Raises InvalidLines with the first faults."""
    faults: list[dict[str, Any]] = []
    numbered, tasks, most = iter(lines), Spooled(), conf().max_tasks_per_stream
    head = [values for _, _, values in _valid(JobHead(), islice(numbered, 1), faults)]
    number = 1
    for number, batch in _batches(_valid(TaskSubmission(), numbered, faults)):
        if len(tasks) + len(batch) > most:
            faults.append(_fault(number, f"A job has at most {most:,} tasks.", "max_length"))
            break
        tasks.add(batch)
    if not (tasks or faults):
        faults.append(_fault(number, "A job has tasks: a line each after its own.", "empty"))
    if faults:
        lines.finish()
        raise InvalidLines(faults)
    return job_spec_of(head[0], tasks)


def _valid(
    fields: StrictSerializer, lines: Iterable[tuple[int, bytes]], faults: list[dict[str, Any]]
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The number, length and values of each line until one is not valid; then `faults` grow to as
    many as are shown, and nothing else comes."""
    for number, line in lines:
        try:
            values = fields.run_validation(parsers.loads(line))
        except ParseError as error:
            detail = str(error.detail).replace("The body", "The line", 1)
            faults.append(_fault(number, detail, "parse_error"))
        except ValidationError as error:
            found = islice(problems.faults(error.detail, "#"), problems.MAX_ERRORS)
            faults += ({"line": number, **it} for it in found)
        else:
            if not faults:
                yield number, len(line), values
        if len(faults) >= problems.MAX_ERRORS:
            return


def _batches(
    valid: Iterable[tuple[int, int, dict[str, Any]]],
) -> Iterator[tuple[int, list[TaskSpec]]]:
    """Tasks, as many as go together, with the number of the last one's line."""
    batch: list[TaskSpec] = []
    size = number = 0
    for number, length, values in valid:
        batch.append(TaskSpec(**values))
        size += length
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield number, batch
            batch, size = [], 0
    if batch:
        yield number, batch


def _fault(line: int, detail: str, code: str) -> dict[str, Any]:
    return {"line": line, "pointer": "#", "code": code, "detail": detail}
