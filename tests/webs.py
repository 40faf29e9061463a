"""Tasks that depend on each other, and what becomes of them."""

from jobs import queue
from jobs.models import Blocked, Deferred, Lease, Ready, Task, Waiting
from jobs.specs import Parent, TaskSpec
from jobs.states import Outcome
from scheduling.invariants import INVARIANTS, look
from tests.helpers import claim, ended, promote
from workers.models import Worker


def step(key: str, *parents: Parent | str | int, **more) -> TaskSpec:
    return TaskSpec(payload={"cmd": key}, key=key, depends_on=parents, **more)


def place_of(task: Task) -> str:
    """The narrow table the task is in and, if it is blocked, why; else its state."""
    for table in (Waiting, Ready, Deferred, Lease):
        if table.objects.filter(pk=task.pk).exists():
            return table.__name__.lower()
    blocked = Blocked.objects.filter(pk=task.pk).first()
    if blocked:
        return f"{blocked.reason} {blocked.unmet or blocked.key}"
    return Task.objects.get(pk=task.pk).status


def run(worker: Worker, outcomes: dict[str, str] | None = None, *, most: int = 10**6) -> list[str]:
    """Runs what may run until nothing may; the keys in order. `outcomes` are by key."""
    order: list[str] = []
    while len(order) < most:
        promote()
        claimed = claim(worker, 1)
        if not claimed and not queue.release()[0] and not promote():
            return order
        for task in claimed:
            key = Task.objects.values_list("key", flat=True).get(pk=task.task_id)
            order.append(key)
            queue.report([ended(task, Outcome((outcomes or {}).get(key, "done")))])
    return order


def statuses() -> dict[str, str]:
    return dict(Task.objects.values_list("key", "status"))


def sound() -> bool:
    """Whether all invariants hold."""
    return not [one.name for one in INVARIANTS if not one.warning and look(one).breaches]
