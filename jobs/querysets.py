"""Names for sets of tasks, each answered from an index or a narrow table."""

from django.db import models

from jobs.states import TERMINAL, Status


class TaskQuerySet(models.QuerySet):
    def ended(self) -> "TaskQuerySet":
        return self.filter(final_status__isnull=False)

    def live(self) -> "TaskQuerySet":
        return self.filter(final_status__isnull=True)

    def in_status(self, *statuses: str) -> "TaskQuerySet":
        """Tasks in any of `statuses`.

        Ended ones are found by the index on `final_status`. Of live ones, queued and running are
        few, so their narrow tables name them; pending ones are found by the same index's NULLs.
        """
        from jobs.models import Lease, Ready

        found = models.Q(pk__in=[])
        if ended := [status for status in statuses if status in TERMINAL]:
            found |= models.Q(final_status__in=ended)
        if Status.PENDING in statuses:
            found |= models.Q(final_status__isnull=True, status=Status.PENDING)
        if Status.QUEUED in statuses:
            found |= models.Q(pk__in=Ready.objects.values("task_id"))
        if Status.IN_PROGRESS in statuses:
            found |= models.Q(pk__in=Lease.objects.values("task_id"))
        return self.filter(found)
