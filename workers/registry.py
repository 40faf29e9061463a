"""Who is there: workers come, renew, are told to go, and leave.

A worker is its name; a boot is one start of it. Everything a boot does names its boot id, so that
a replaced boot can renew nothing. These functions hold the worker's row lock while they judge its
leases, so a heartbeat and recovery cannot both be right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db import models, transaction
from django.db.models import Case, Exists, F, OuterRef, Value, When
from django.db.models.functions import Now

from dtsproject import wakeups
from dtsproject.conf import conf
from dtsproject.errors import Refusal
from jobs import logs, queue, statements
from jobs.labels import expanded
from jobs.marks import Marks
from jobs.models import Lease
from jobs.specs import Claimed, Ending, LogPart
from workers.models import PRESENT, State, Worker


class NameTaken(Refusal):
    code, title = "worker_name_taken", "A live worker has this name"


class Superseded(Refusal):
    code, title = "worker_superseded", "Another start of this worker took its place"


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What a worker says of itself when it starts.

    `former_boot_dead`: it has proof that no process of the former boot of this name lives, on
    the machine `machine_id`.
    """

    name: str
    boot_id: UUID
    machine_id: str
    slots: int
    capabilities: Sequence[str] = ()
    queues: Sequence[str] = ()
    version: str = ""
    host: str = ""
    pid: int | None = None
    former_boot_dead: bool = False


@dataclass(frozen=True, kw_only=True)
class Beat:
    """The answer to a heartbeat: tasks no longer the worker's, tasks to cancel, its state.

    `ready`: whether there may be work to claim, by a server that had put its answer off; or None.
    """

    state: str
    lost: list[int]
    cancelled: list[int]
    ready: bool | None = None


def register(registration: Registration) -> Worker:
    """Makes this boot the one that holds the name. Raises NameTaken while another one lives.

    What a former boot held is taken back at once if that boot is proved dead; else when it
    lapses.
    """
    given = {
        name: getattr(registration, name)
        for name in ("boot_id", "machine_id", "slots", "version", "host", "pid")
    }
    given |= {
        "capabilities": expanded(registration.capabilities),
        "queues": sorted(set(registration.queues)),
        "state": State.ONLINE,
        "started_at": Now(),
        "last_heartbeat": Now(),
    }
    with transaction.atomic():
        worker, created = Worker.objects.select_for_update().get_or_create(
            name=registration.name, defaults=given
        )
        if not created and worker.boot_id != registration.boot_id:
            _replace(worker, registration, given)
    worker.refresh_from_db()
    wakeups.notify(wakeups.SUBMITTED)
    return worker


def _replace(worker: Worker, registration: Registration, given: Mapping) -> None:
    dead = registration.former_boot_dead and worker.machine_id == registration.machine_id
    if not dead and Worker.objects.live().filter(pk=worker.pk).exists():
        raise NameTaken(
            f"Worker {worker.name} on {worker.host or 'another machine'} is alive; start this one "
            "under another --name, or stop that one first"
        )
    if dead:
        queue.recover_boot(worker.pk)
    Worker.objects.filter(pk=worker.pk).update(**given)


def deliver(name: str, endings: Sequence[Ending], parts: Sequence[LogPart]) -> dict[int, str]:
    """Stores what a former boot of the worker `name` could not deliver, before it is replaced.

    Guarded like every report: a lease that was taken back meanwhile is not in the answer.
    """
    worker = Worker.objects.filter(name=name).first()
    if worker is None:
        return {}
    if parts:
        logs.append(worker.pk, parts)
    return queue.report(endings, worker_id=worker.pk) if endings else {}


def exchange(
    worker_id: int, boot_id: UUID, endings: Sequence[Ending], limit: int, marks: Marks
) -> tuple[dict[int, str], list[Claimed]]:
    """Reports `endings` and claims tasks of up to `limit` slots for this boot, in one commit;
    either may be nothing. See `queue.report` and `queue.claim`."""
    if not limit:
        return queue.report(endings, worker_id=worker_id) if endings else {}, []
    if not endings:
        return {}, queue.claim(worker_id=worker_id, boot_id=boot_id, limit=limit, marks=marks)
    return queue.report_and_claim(
        endings, worker_id=worker_id, boot_id=boot_id, limit=limit, marks=marks
    )


def heartbeat(
    worker_id: int, boot_id: UUID, held: Mapping[int, int], *, draining: bool = False
) -> Beat:
    """Renews the leases named by `held` ({task id: fencing token}). Raises Superseded.

    Leases of the worker that it does not name are given back once they were claimed a lease ago.
    A worker that had been thought lost is online again; one that is `draining` says so.
    """
    state = (
        Value(State.DRAINING)
        if draining
        else Case(When(state=State.LOST, then=Value(State.ONLINE)), default=F("state"))
    )
    with transaction.atomic():
        renewed = Worker.objects.filter(pk=worker_id, boot_id=boot_id).exclude(state=State.GONE)
        if not renewed.update(last_heartbeat=Now(), state=state):
            raise Superseded("Start the worker again: this boot no longer holds its name")
        queue.release_unheld(worker_id, held)
        found = Lease.objects.filter(worker_id=worker_id) if held else Lease.objects.none()
        leases = {
            (task_id, token): cancel
            for task_id, token, cancel in found.values_list(
                "task_id", "fencing_token", "cancel_requested_at"
            )
        }
    return Beat(
        state=Worker.objects.values_list("state", flat=True).get(pk=worker_id),
        lost=[task_id for task_id, token in held.items() if (task_id, token) not in leases],
        cancelled=[
            task_id for task_id, token in held.items() if leases.get((task_id, token)) is not None
        ],
    )


def claimants(worker_ids: Sequence[int], limit: int) -> list[int]:
    """Which of these idle workers may claim something, or have to hear that they are not online;
    no more than `limit` for a lane."""
    parameters = {"workers": list(worker_ids), "limit": limit}
    return [pk for (pk,) in statements.rows("claimants", parameters)]


def recover_silent() -> tuple[list[int], dict[int, str]]:
    """Declares silent workers lost, and takes back the lapsed leases of all that are absent.

    Returns the ids of workers newly lost, and the tasks moved with their states.
    """
    lease = timedelta(seconds=conf().lease_seconds)
    with transaction.atomic():
        silent = list(
            Worker.objects.select_for_update(skip_locked=True)
            .filter(state__in=PRESENT, last_heartbeat__lt=Now() - lease)
            .values_list("pk", flat=True)
        )
        Worker.objects.filter(pk__in=silent).update(state=State.LOST)
        holding = Exists(Lease.objects.filter(worker_id=OuterRef("pk")))
        absent = list(
            Worker.objects.select_for_update()
            .filter(holding, state__in=(State.LOST, State.GONE))
            .order_by("pk")
            .values_list("pk", flat=True)
        )
        return silent, queue.recover(absent) if absent else {}


def leave(worker_id: int, boot_id: UUID) -> None:
    """The boot ends in good order: its name is free at once."""
    Worker.objects.filter(pk=worker_id, boot_id=boot_id).update(state=State.GONE)


def prune_gone() -> int:
    """Forgets workers that left, or fell silent, longer than retention_days ago."""
    age = timedelta(days=conf().retention_days)
    holding = Exists(Lease.objects.filter(worker_id=OuterRef("pk")))
    old = Worker.objects.filter(
        ~holding, state__in=(State.GONE, State.LOST), last_heartbeat__lt=Now() - age
    )
    return old.delete()[0]


def drain(workers: models.QuerySet) -> int:
    """Asks these workers to finish what they run and leave. Returns how many were asked."""
    return workers.filter(state__in=(State.ONLINE, State.CORDONED)).update(state=State.DRAINING)


def cordon(workers: models.QuerySet) -> int:
    """Lets these workers claim nothing new while they finish what they run."""
    return workers.filter(state=State.ONLINE).update(state=State.CORDONED)


def uncordon(workers: models.QuerySet) -> int:
    """Lets cordoned workers claim again."""
    return workers.filter(state=State.CORDONED).update(state=State.ONLINE)
