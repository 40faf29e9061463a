"""DTS from Python: submit jobs, wait for them, follow what their tasks print.

    from dts_client import Client

    dts = Client("https://dts.example.org", token="dts_...")
    job = dts.submit("nightly", ["./dump shop", {"payload": {"cmd": "./dump wiki"}, "priority": 9}])
    assert dts.wait(job)["state"] == "done"

One file that needs the standard library alone: copy it to where you need it. Jobs, tasks and
attempts are dicts as the API documents them (/docs); methods take an id or such a dict.

What changes nothing, or carries an Idempotency-Key as every submit does, is sent again while
nobody answers or the answer is "later" (429, 502, 503, 504): a submit whose answer was lost makes
one job all the same. A refusal raises ApiError, a server that stays away Unreachable.

A Client keeps no connection, so threads may share one. It reads no proxy settings.
"""

import base64
import http.client
import io
import json
import random
import ssl
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import chain
from typing import Any
from urllib.parse import urlencode, urlsplit

__all__ = ["ApiError", "Client", "Unreachable"]

ENDED = ("done", "failed", "cancelled")
LATER = (429, 502, 503, 504)
PAGE = 500  # rows, which is all that the API gives at a time
# More tasks, or nobody knows how many, go line by line (NDJSON): up to a million.
MOST_TASKS_IN_JSON = 10_000
IN_MEMORY_BYTES = 8 * 1024 * 1024
TASKS_A_SECOND = 2_000  # which a server stores at the very least
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0
Json = dict[str, Any]


class ApiError(Exception):
    """A refusal. `code` is for programs and stays, `detail` for people; `errors` names each fault
    by its `pointer` or `parameter`; `request_id` finds the request in the server's log; `document`
    is all of the problem document (RFC 9457). What stands before DTS answers without a `code`.
    """

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        self.status = status
        self.document = document
        self.code: str = document.get("code", "")
        self.detail: str = document.get("detail", "")
        self.errors: list[Json] = document.get("errors", [])
        self.request_id: str = document.get("request_id", "")
        super().__init__(
            f"{status} {self.code or http.client.responses.get(status)}: {self.detail}"
        )


class Unreachable(ConnectionError):
    """Nobody answered, or not in time. What was asked may have happened."""


class Client:
    """The API at `url`, such as http://localhost:8080, as `token` may use it.

    `timeout` is for how many seconds the server may say nothing; `patience`, for how many a request
    that may be repeated is.
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout: float = 60, patience: float = 60
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL such as https://dts.example.org")
        if token and not (token.isascii() and token.isprintable()):
            raise ValueError("this is no token: it has characters that none has")
        self.url = url.rstrip("/")
        self._host, self._port, self._base = parts.hostname, parts.port, parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = {"Content-Type": "application/json", "User-Agent": "dts-client"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self.timeout, self.patience = timeout, patience

    def submit(
        self,
        name: str,
        tasks: Iterable[str | Mapping[str, Any]],
        *,
        idempotency_key: str | None = None,
        **more: Any,
    ) -> Json:
        """Stores a job whole, or not at all, and returns it.

        A task is a shell command, or an object as the API takes it; `more` are other fields of the
        job, such as `queue` and `labels`. Who calls again with the same `idempotency_key`, from
        another process even, gets the same job; without one, each call makes a new one.
        """
        if isinstance(tasks, str | Mapping):
            raise TypeError("give a list of tasks, though it be of one")
        key = _key(idempotency_key)
        objects = ({"payload": {"cmd": task}} if isinstance(task, str) else task for task in tasks)
        if isinstance(tasks, Sequence) and len(tasks) <= MOST_TASKS_IN_JSON:
            return self.request("POST", "/jobs", {"name": name, **more, "tasks": [*objects]}, key)
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as lines:
            count = 0
            for line in chain([{"name": name, **more}], objects):
                lines.write(json.dumps(line).encode() + b"\n")
                count += 1
            key["Content-Type"] = "application/x-ndjson"
            timeout = self.timeout + count / TASKS_A_SECOND
            return self.request("POST", "/jobs", lines, key, timeout=timeout)

    def job(self, job: int | Json) -> Json:
        """The job, with its `state` and the `counts` of its tasks."""
        return self.request("GET", f"/jobs/{_id(job)}")

    def jobs(self, **filters: Any) -> Iterator[Json]:
        """The jobs that `filters` leave, as `GET /jobs` knows them, newest first."""
        return self._rows("/jobs", filters)

    def wait(self, job: int | Json, timeout: float | None = None) -> Json:
        """The job once its last task has ended; the server may be away meanwhile.

        Raises TimeoutError, or Unreachable where nobody answers at the end of `timeout` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        pause = _Pause()
        while (found := self._look(f"/jobs/{_id(job)}", until))["state"] not in ENDED:
            if not pause.ends(until):
                raise TimeoutError(f"job {_id(job)} is {found['state']} after {timeout:g} s")
        return found

    def cancel_job(self, job: int | Json) -> Json:
        """What waits of the job is cancelled; what runs is asked to end."""
        return self._job_verb(job, "cancel")

    def retry_job(self, job: int | Json) -> Json:
        """The job's failed and cancelled tasks start over."""
        return self._job_verb(job, "retry")

    def prioritise_job(self, job: int | Json, priority: int) -> Json:
        """Another priority for what of the job has not started."""
        return self._job_verb(job, "prioritise", {"priority": priority})

    def operate(self, action: str, target: str = "tasks", **more: Any) -> Json:
        """Begins to `cancel`, `retry` or `prioritise` all that a `filter` leaves; with `dry_run`,
        counts it. `more` are other fields of POST /operations."""
        return self.request("POST", "/operations", {"action": action, "target": target, **more})

    def wait_for_operation(self, operation: int | Json) -> Json:
        """The operation once it has ended."""
        pause = _Pause()
        while (found := self._look(f"/operations/{_id(operation)}"))["ended_at"] is None:
            pause.ends()
        return found

    def clone_job(self, job: int | Json, *, idempotency_key: str | None = None) -> Json:
        """A new job of the same tasks; see `submit` for the key."""
        return self.request("POST", f"/jobs/{_id(job)}/clone", None, _key(idempotency_key))

    def task(self, task: int | Json) -> Json:
        return self.request("GET", f"/tasks/{_id(task)}")

    def tasks(self, job: int | Json | None = None, **filters: Any) -> Iterator[Json]:
        """The tasks of a job, or of all, that `filters` leave, newest first."""
        return self._rows("/tasks" if job is None else f"/jobs/{_id(job)}/tasks", filters)

    def attempts(self, task: int | Json) -> Iterator[Json]:
        """The attempts at a task that have ended, newest first."""
        return self._rows(f"/tasks/{_id(task)}/attempts", {})

    def cancel_task(self, task: int | Json) -> Json:
        return self.request("POST", f"/tasks/{_id(task)}/cancel")

    def retry_task(self, task: int | Json) -> Json:
        return self.request("POST", f"/tasks/{_id(task)}/retry")

    def prioritise_task(self, task: int | Json, priority: int) -> Json:
        return self.request("POST", f"/tasks/{_id(task)}/prioritise", {"priority": priority})

    def follow(self, task: int | Json, stream: str = "stdout") -> Iterator[bytes]:
        """What the task prints, as it comes: all of its present attempt, then of later ones, until
        the task has ended. The server may be away meanwhile."""
        seen, pause = 0, _Pause()
        while True:
            found = self._look(f"/tasks/{_id(task)}")
            if found["attempt"] > seen:
                seen, pause = found["attempt"], _Pause()
                yield from self.output(task, seen, stream)
            elif found["status"] in ENDED:
                return
            else:
                pause.ends()

    def output(self, task: int | Json, attempt: int, stream: str = "stdout") -> Iterator[bytes]:
        """What one attempt prints, as it comes, until it has ended."""
        query: Json = {"attempt": attempt, "stream": stream, "after": 0}
        pause = _Pause()
        while True:
            part = self._look(f"/tasks/{_id(task)}/log?{urlencode(query)}")
            if data := part["data"]:
                yield data.encode() if part["encoding"] == "utf-8" else base64.b64decode(data)
                query["after"], pause = part["next"], _Pause()
            if part["ended"]:
                return
            if not data:
                pause.ends()

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        patience: float | None = None,
        timeout: float | None = None,
    ) -> Json:
        """The object that /api/v1 + `path` answers, for what has no method of its own here.

        `body` goes as JSON, a file as it is. Raises ApiError and Unreachable.
        """
        headers = {**self._headers, **(headers or {})}
        repeatable = method == "GET" or "Idempotency-Key" in headers
        until: float | None = None
        pause = _Pause()
        while True:
            at_least = 0.0
            try:
                status, at_least, text = self._ask(method, path, body, headers, timeout)
                return _object(status, text)
            except (ApiError, Unreachable) as error:
                if until is None:
                    until = time.monotonic() + (self.patience if patience is None else patience)
                again = repeatable and _may_pass(error) and pause.ends(until, at_least)
                if not again:
                    raise

    def _job_verb(self, job: int | Json, verb: str, body: object = None) -> Json:
        """Of a large job an operation comes of it, whose end is waited for."""
        answer = self.request("POST", f"/jobs/{_id(job)}/{verb}", body)
        if "action" not in answer:
            return answer
        self.wait_for_operation(answer)
        return self.job(job)

    def _look(self, path: str, until: float | None = None) -> Json:
        """What is there, however long the server is away until then."""
        left = float("inf") if until is None else max(0.0, until - time.monotonic())
        return self.request("GET", path, patience=left)

    def _rows(self, path: str, filters: Mapping[str, Any]) -> Iterator[Json]:
        query = urlencode({"limit": PAGE, **filters}, doseq=True)
        while True:
            page = self.request("GET", f"{path}?{query}")
            yield from page["results"]
            if page["next"] is None:
                return
            query = urlsplit(page["next"]).query  # its host may be a name that only others know

    def _ask(
        self,
        method: str,
        path: str,
        body: object,
        headers: Mapping[str, str],
        timeout: float | None,
    ) -> tuple[int, float, bytes]:
        """The status, Retry-After and body of an answer. Raises Unreachable."""
        sent = body if isinstance(body, io.IOBase) else io.BytesIO(_json(body))
        length = sent.seek(0, io.SEEK_END)
        sent.seek(0)
        headers = {**headers, "Content-Length": str(length)}
        try:
            with closing(self._connect(timeout or self.timeout)) as connection:
                with suppress(BrokenPipeError):  # who refuses a body need not read all of it
                    connection.request(method, f"{self._base}/api/v1{path}", sent, headers)
                answer = connection.getresponse()
                wait = answer.headers.get("Retry-After", "")
                return answer.status, float(wait) if wait.isdecimal() else 0.0, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self._host}: {str(error) or type(error).__name__}") from error

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=timeout, context=self._tls
        )


class _Pause:
    """Waits ever longer, give or take a half, so that many clients keep no step."""

    def __init__(self) -> None:
        self._seconds = FIRST_PAUSE_SECONDS

    def ends(self, until: float | None = None, at_least: float = 0.0) -> bool:
        """Waits, and says whether there is time left until then; if not, it does not wait."""
        left = float("inf") if until is None else until - time.monotonic()
        if left <= at_least:
            return False
        wanted = self._seconds * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        time.sleep(min(at_least + wanted, left))
        self._seconds = min(1.5 * self._seconds, LONGEST_PAUSE_SECONDS)
        return True


def _may_pass(error: ApiError | Unreachable) -> bool:
    if isinstance(error, Unreachable):
        return not isinstance(error.__cause__, ssl.SSLCertVerificationError)
    # The latter: this very submit, sent before, goes on.
    return error.status in LATER or error.code == "idempotency_key_in_use"


def _object(status: int, text: bytes) -> Json:
    """The JSON object of an answer. Raises ApiError."""
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if status < 300 and isinstance(document, dict):
        return document
    if not isinstance(document, dict):
        document = {"detail": text[:200].decode(errors="replace")}
    raise ApiError(status, document)


def _json(body: object) -> bytes:
    return b"" if body is None else json.dumps(body).encode()


def _id(given: int | Json) -> int:
    return given if isinstance(given, int) else int(given["id"])


def _key(given: str | None) -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4()) if given is None else given}
