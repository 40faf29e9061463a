"""The clients of a chaos run: they submit, try again, think better of it, and note each answer."""

import heapq
import http.client
import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from dtsproject.chaos.history import History, now
from dtsproject.chaos.workload import Submission

THREADS = 4
ANSWER_SECONDS = 5.0
TRY_AGAIN_SECONDS = 0.3
PROBE_SECONDS = 0.1
OK, CREATED = 200, 201
# The first try goes on; too much waits; the database is away.
TRY_AGAIN = (409, 429, 503)


class Http:
    """JSON over HTTP with no proxy between, whatever the environment says."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(
        self, path: str, body: Any = None, *, key: str = "", seconds: float = ANSWER_SECONDS
    ) -> tuple[int, Any]:
        """Status and parsed body. Raises OSError or HTTPException where no answer came."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        request = urllib.request.Request(self.url + path, data, headers)  # noqa: S310 - our own
        try:
            with self._opener.open(request, timeout=seconds) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.read().decode(errors="replace")


def holder_of(answer: int | str, body: Any) -> int:
    """The job that another submit of its unique key is told of; 0: that is not the answer."""
    if answer == OK:
        return int(body["id"])
    with suppress(ValueError, TypeError):
        problem = json.loads(body)
        if problem["code"] == "duplicate":
            return int(problem["job_id"])
    return 0


class Clients:
    """Threads that do what is due: submit, and later cancel or retry what was acknowledged."""

    def __init__(
        self, url: str, submissions: Sequence[Submission], started_at: float, history: History
    ) -> None:
        self.http = Http(url)
        self.history = history
        self.started_at = started_at  # time.monotonic()
        self.acknowledged = 0
        self.stopping = False
        self._due = [(it.at, it.number, it, 0) for it in submissions]  # last: its job, once known
        heapq.heapify(self._due)
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in [*[self._work] * THREADS, self._probe]
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def __str__(self) -> str:
        return f"{self.acknowledged} jobs acknowledged"

    def all_answered(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads[:THREADS])

    def stop(self) -> None:
        """What has no answer by now stays unknown."""
        self.stopping = True
        for thread in self._threads:
            thread.join(2 * ANSWER_SECONDS)

    def _work(self) -> None:
        while not self.stopping:
            with self._lock:
                if not self._due:
                    return
                at, number, submission, job = heapq.heappop(self._due)
            time.sleep(max(0.0, self.started_at + at - time.monotonic()))
            if job:
                self._think_again(submission, job)
            elif (job := self._submit(submission)) and submission.then:
                due = time.monotonic() - self.started_at + submission.then_after
                with self._lock:
                    heapq.heappush(self._due, (due, number, submission, job))

    def _submit(self, submission: Submission) -> int:
        """Tries until it is acknowledged; returns the job's id, or 0 when it gives up."""
        number, first_at = submission.number, now()
        kinds = [task["name"] for task in submission.tasks]
        key = (submission.unique or {}).get("key")
        facts = {"submission": number, "tasks": len(kinds), "kinds": kinds, "key": key}
        self.history.add("submitted", at=first_at, **facts)
        while not self.stopping:
            answer, body = self._try("/api/v1/jobs", submission.body(), key=f"chaos-{number}")
            if answer == CREATED:
                job, pause = int(body["id"]), now() - first_at
                self.history.add(
                    "acknowledged", submission=number, job=job, pause_seconds=round(pause, 3)
                )
                self.acknowledged += 1
                return job
            if key and (holder := holder_of(answer, body)):
                self.history.add("held", submission=number, job=holder, answer=answer)
                return 0
            self.history.add("tried", submission=number, answer=answer, body=str(body)[:300])
            if isinstance(answer, int) and 400 <= answer < 500 and answer not in TRY_AGAIN:
                return 0
            time.sleep(TRY_AGAIN_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        return 0

    def _think_again(self, submission: Submission, job: int) -> None:
        answer, _ = self._try(f"/api/v1/jobs/{job}/{submission.then}", {})
        self.history.add("asked", job=job, what=submission.then, answer=answer)

    def _try(self, path: str, body: Any, key: str = "") -> tuple[int | str, Any]:
        """A status and the body; or `refused` (never arrived) or `unknown` (it may have)."""
        try:
            return self.http.ask(path, body, key=key)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            refused = isinstance(reason, ConnectionRefusedError)
            return "refused" if refused else "unknown", repr(reason)

    def _probe(self) -> None:
        """Asks all the time whether the API is ready."""
        while not self.stopping:
            asked_at = now()
            try:
                ready = self.http.ask("/readyz", seconds=1.0)[0] == OK
            except (OSError, http.client.HTTPException, ValueError):
                ready = False
            self.history.add("probed", asked_at=asked_at, ready=ready)
            time.sleep(PROBE_SECONDS)
