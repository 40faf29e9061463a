"""The verbs by which people hold a queue: paused work is neither promoted nor claimed."""

from django.db import transaction
from django.db.models.functions import Now

from dtsproject import wakeups
from jobs.models import Lane, Queue
from jobs.promotion import recall

FIRST = -(2**63)  # below every score and dispatch sequence


def pause(name: str) -> bool:
    """Holds the queue; what was queued goes back to pending, what runs goes on.

    What another transaction moves meanwhile may stay queued, but nobody claims it. Returns whether
    the queue was not paused before.
    """
    with transaction.atomic():
        if not Queue.objects.filter(name=name, paused_at=None).update(paused_at=Now()):
            return False
        lanes = Lane.objects.filter(queue=name).values_list("pk", flat=True)
        recall(dict.fromkeys(lanes, (FIRST, FIRST)))
    return True


def resume(name: str) -> bool:
    """Lets the queue go on. Returns whether it was paused."""
    resumed = Queue.objects.filter(name=name, paused_at__isnull=False).update(paused_at=None)
    if resumed:
        wakeups.notify(wakeups.SUBMITTED)
        wakeups.notify(wakeups.READY)
    return bool(resumed)
