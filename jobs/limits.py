"""The verbs by which people bound how much runs at once: of a queue, and of a concurrency key.

What promotion does about it is in jobs/promotion.py.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models.functions import Now

from dtsproject import wakeups
from jobs import statements
from jobs.models import Limit, Queue
from jobs.promotion import hold_up_promotion


class Standing(NamedTuple):
    """How far a key's limit is used: the limit's key, how many of the key are queued or run, and
    when its rate lets the next go, if that is to come (`rate_reached`)."""

    key: str
    max_running: int | None
    running: int
    next_at: datetime | None
    rate_reached: bool | None


def standing(key: str) -> Standing | None:
    """Of the limit that holds for the concurrency key, if any."""
    found = statements.rows("limit_now", {"key": key})
    return Standing._make(found[0]) if found else None


def limit_key(key: str, values: Mapping[str, Any]) -> tuple[Limit, bool]:
    """Gives the key this limit: `max_running`, and `rate_count` within `rate_seconds`; what is not
    given is not bounded. Returns it, and whether it is new.

    It holds for all that is promoted from then on. What runs goes on, and counts.
    """
    bounds = {name: values.get(name) for name in ("max_running", "rate_count", "rate_seconds")}
    with transaction.atomic():
        hold_up_promotion()
        limit, made = Limit.objects.update_or_create(
            key=key, defaults={**bounds, "changed_at": Now()}
        )
        statements.execute("permit_running", {})
    wakeups.notify(wakeups.SUBMITTED)
    return limit, made


def unlimit_key(key: str) -> bool:
    """Takes the key's limit away. Returns whether it had one."""
    with transaction.atomic():
        hold_up_promotion()
        if not Limit.objects.filter(key=key).delete()[0]:
            return False
        # What it covered may now be under another, as if that were new.
        Limit.objects.filter(key__endswith="*").update(changed_at=Now())
        statements.execute("unlimit", {})
    wakeups.notify(wakeups.SUBMITTED)
    return True


def limit_queue(name: str, max_running: int | None) -> Queue:
    """Bounds how many of the queue's tasks are queued or run at once; None: any number."""
    queue, _ = Queue.objects.update_or_create(name=name, defaults={"max_running": max_running})
    wakeups.notify(wakeups.SUBMITTED)
    return queue


def sweep_permits() -> None:
    """Forgets permits that count for nothing any more. The caller has the promotion lock: a task
    could be promoted again meanwhile."""
    statements.execute("sweep_permits", {})
