"""The words of a task's life, and which state may follow which.

    pending -> queued -> in_progress -> done | failed | cancelled

A task that failed or was cancelled starts over (pending) only in a new generation.
"""

from django.db.models import TextChoices


class Status(TextChoices):
    PENDING = "pending"
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = (Status.DONE, Status.FAILED, Status.CANCELLED)

TRANSITIONS: dict[Status, tuple[Status, ...]] = {
    Status.PENDING: (Status.QUEUED, Status.FAILED, Status.CANCELLED),
    Status.QUEUED: (Status.PENDING, Status.IN_PROGRESS, Status.FAILED, Status.CANCELLED),
    Status.IN_PROGRESS: (Status.PENDING, Status.QUEUED, *TERMINAL),
    Status.DONE: (),
    Status.FAILED: (Status.PENDING,),
    Status.CANCELLED: (Status.PENDING,),
}


class Outcome(TextChoices):
    """How an attempt ended. What becomes of its task is jobs/sql/end.sql's to say."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    RELEASED = "released"
    LOST = "lost"


class OnFailure(TextChoices):
    """What becomes of a task when one that it depends on did not end well."""

    CANCEL = "cancel"
    RUN = "run"


class Scope(TextChoices):
    """Among which jobs a unique key is unique."""

    QUEUE = "queue"
    ALL = "all"


class OnDuplicate(TextChoices):
    """What a submit does whose unique key another job holds."""

    REJECT = "reject"
    JOIN = "join"
    REPLACE = "replace"


class Kind(TextChoices):
    SHELL = "shell"
    PYTHON = "python"
