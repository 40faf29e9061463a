"""What people do: recorded, and answered with a sentence."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from django.db import transaction
from django.http import HttpRequest

from jobs import audit, queue
from jobs.models import Lease
from jobs.states import Status


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def cancelled(asked: int | None, left_in: Mapping[int, str]) -> str:
    """What `queue.cancel` did, when `asked` tasks were named (None: those that were live)."""
    running = [pk for pk, status in left_in.items() if status == Status.IN_PROGRESS]
    said = []
    if at_once := len(left_in) - len(running):
        said.append(f"cancelled {plural(at_once, 'task')} at once")
    if running:
        workers = Lease.objects.filter(task_id__in=running).values("worker").distinct().count()
        said.append(
            f"asked {plural(workers, 'worker')} to stop {plural(len(running), 'running task')}"
        )
    sentence = ", ".join(said) or "nothing to cancel"
    if asked is not None and (ended := asked - len(left_in)):
        sentence += f"; {ended:,} had already ended"
    return f"{sentence[0].upper()}{sentence[1:]}."


def retried(asked: int, again: Iterable[int]) -> str:
    """What `queue.retry` did when `asked` tasks were named."""
    count = len(list(again))
    sentence = f"{plural(count, 'task')} will run again"
    if (left := asked - count) > 0:  # what a failure cancelled comes back unasked
        sentence += f"; {left:,} had neither failed nor been cancelled"
    return sentence + "."


def retry(request: HttpRequest, targets: Iterable[str], tasks: Sequence[int]) -> str:
    """Retries these tasks, recorded; the sentence that says so."""
    try:
        with recorded(request, "retry", targets):
            again = queue.retry(tasks)
    except queue.Duplicate as refused:
        return refused.detail
    return retried(len(tasks), again)


@contextmanager
def recorded(request: HttpRequest, action: str, targets: Iterable[str]) -> Iterator[None]:
    """One transaction for what a person does and its entry in the audit trail."""
    with transaction.atomic():
        note(request, action, targets)
        yield


def note(request: HttpRequest, action: str, targets: Iterable[str]) -> None:
    """Its entry alone: within the transaction of what the person did."""
    source = request.META.get("REMOTE_ADDR") or ""
    audit.record(request.user.get_username(), action, targets, source)
