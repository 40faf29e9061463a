"""Takes back what lost workers held, fails what outlived its deadline, carries out operations, and
keeps house.

A loop of its own, never a task: a task would stall with the rest (procrastinate #1408). Any
number of recoveries may run.
"""

import time

import structlog

from dtsproject.conf import conf
from dtsproject.loop import Loop
from dtsproject.postgresql.base import patient
from jobs import logs, operations, prune, queue
from scheduling import schedules
from workers import registry
from workers.guard_wire import boottime

log = structlog.get_logger(__name__)

HOUSEKEEPING_SECONDS = 600
FAILED_AT_ONCE = 1_000
# How much longer than others a statement of it may take: to delete, to move a day's output.
HOUSEKEEPING_PATIENCE = 20


class Recovery(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.interval_seconds = conf().recovery_interval_seconds
        self.lost_contact()
        self._last_tick = boottime()
        self._house_kept_at: float | None = None

    def lost_contact(self) -> None:
        self._in_contact_since = boottime()

    def tick(self) -> int:
        self._keep_house()
        moved = operations.advance() + self._fail_overdue()
        if not self.may_judge():
            return moved
        silent, recovered = registry.recover_silent()
        expired = queue.expire()
        if silent or recovered or expired:
            log.warning("recovered", lost_workers=silent, recovered=recovered, expired=expired)
        return moved + len(recovered) + len(expired)

    def _fail_overdue(self) -> int:
        """No worker needs time for that: its clock is the database's."""
        overdue = queue.fail_overdue(batch=FAILED_AT_ONCE)
        if overdue:
            log.warning("deadline_passed", tasks=overdue)
        return len(overdue)

    def may_judge(self) -> bool:
        """Whether workers, too, had a whole lease of the database's presence to renew in.

        After an outage, a pause of this process or its start everybody looks silent.
        """
        now, lease = boottime(), conf().lease_seconds
        if now - self._last_tick > max(lease / 2, 2 * self.interval_seconds):
            self.lost_contact()
        self._last_tick = now
        return now - self._in_contact_since >= lease

    def _keep_house(self) -> None:
        now = time.monotonic()
        if self._house_kept_at and now - self._house_kept_at < HOUSEKEEPING_SECONDS:
            return
        with patient(HOUSEKEEPING_PATIENCE):
            # If it fails, leases go first: it is tried again no sooner than it would be kept.
            self._house_kept_at = now
            logs.make_partitions()
            logs.drop_old_partitions()
            while prune.prune() or prune.prune_keys():
                pass
            prune.prune_buckets()
            while operations.prune():
                pass
            while schedules.prune():
                pass
            registry.prune_gone()
