"""How a job comes in, by the API or the command: within the backlog, and once for each key.

After draft-ietf-httpapi-idempotency-key-header: a submit whose answer was lost is sent again under
its key, and answered as the first time.
"""

import hashlib
import json
import re
from dataclasses import dataclass

from django.db import connection, transaction

from dtsproject.conf import conf
from dtsproject.errors import Refusal
from jobs import queue
from jobs.backlog import backlog
from jobs.models import IdempotencyKey, Job
from jobs.specs import JobSpec

KEY = re.compile(r'"([ !#-\[\]-~]{1,255})"|([!#-\[\]-~]{1,255})')


class InvalidKey(Refusal):
    status, code, title = 400, "invalid_idempotency_key", "The Idempotency-Key is not valid"


class KeyInUse(Refusal):
    code, title = "idempotency_key_in_use", "The first submit with this key goes on"
    retry_after_seconds = 1


class KeyReused(Refusal):
    status, code, title = 422, "idempotency_key_reused", "The key belongs to another job"


@dataclass(frozen=True)
class Key:
    """An idempotency key, of this owner, for this body."""

    owner: str
    text: str
    fingerprint: str

    @classmethod
    def of(cls, given: str, owner: str, fingerprint: str) -> "Key":
        """The key as a header or an option spells it, quoted or not.

        Raises InvalidKey.
        """
        found = KEY.fullmatch(given.strip())
        if found is None:
            raise InvalidKey(
                "Give 1 to 255 printable ASCII characters without quotes and backslashes, such as "
                "a UUID, new for each job."
            )
        return cls(owner, found[1] or found[2], fingerprint)


def fingerprint(body: object) -> str:
    """Of parsed JSON, however it was spelt."""
    same = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(same.encode()).hexdigest()


def take_in(spec: JobSpec, *, submitted_by: str, key: Key | None = None) -> tuple[Job, bool]:
    """Stores the job; returns it, and whether an earlier submit with this key had stored it.

    The key is kept in the job's own transaction, for `idempotency_hours`. A job that was there
    before, of the same unique key, is `joined`. Raises Overloaded, TooManyLanes, Duplicate,
    KeyInUse and KeyReused.
    """
    if key is None:
        backlog.admit(len(spec.tasks))
        return queue.submit(spec, submitted_by=submitted_by), False
    with transaction.atomic():
        _lock(key)
        kept = IdempotencyKey.objects.filter(owner=key.owner, key=key.text).first()
        if kept is not None:
            return _first(kept, key, spec, submitted_by), True
        backlog.admit(len(spec.tasks))
        job = queue.submit(spec, submitted_by=submitted_by)
        IdempotencyKey.objects.create(
            owner=key.owner,
            key=key.text,
            fingerprint=key.fingerprint,
            job_id=job.pk,
            joined=job.joined,
            created_at=job.created_at,
        )
    return job, False


def _lock(key: Key) -> None:
    """Until the transaction ends. A statement of its own: the next one sees what its last holder
    committed. Raises KeyInUse."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [f"{key.owner} {key.text}"]
        )
        (locked,) = cursor.fetchone()
    if not locked:
        raise KeyInUse("A submit with this key has not been answered yet; ask again in a moment.")


def _first(kept: IdempotencyKey, key: Key, spec: JobSpec, submitted_by: str) -> Job:
    """The job as it was first answered: by the same owner, from the same body."""
    if kept.fingerprint != key.fingerprint:
        raise KeyReused(
            f"Job {kept.job_id} was submitted with this key and another body; take a new key for "
            f"each job. A key is remembered for {conf().idempotency_hours} hours.",
            job_id=kept.job_id,
        )
    if kept.joined and (job := Job.objects.filter(pk=kept.job_id).first()):
        job.joined = True
        return job
    return Job(
        pk=kept.job_id,
        name=spec.name,
        queue=spec.queue,
        labels=spec.labels,
        unique=spec.unique and spec.unique._asdict(),
        submitted_by=submitted_by,
        created_at=kept.created_at,
    )
