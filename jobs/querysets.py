"""Names for sets of tasks, each answered from an index or a narrow table."""

from typing import cast

from django.db import models
from django.db.models.functions import Greatest, Least

from jobs.states import TERMINAL, Status


class TaskQuerySet(models.QuerySet):
    def ended(self) -> "TaskQuerySet":
        return self.filter(final_status__isnull=False)

    def live(self) -> "TaskQuerySet":
        return self.filter(final_status__isnull=True)

    def of_job(self, job_id: int) -> "TaskQuerySet":
        """Tasks of a job, in whatever order, at a cost that does not grow with the table.

        A job's tasks were stored together, so their ids are neighbours. Without the bounds, the
        newest of them would be sought by the primary key from the table's end.
        """
        first = Least(*self._ends_of_job(job_id, "final_status", "pk"))
        last = Greatest(*self._ends_of_job(job_id, "-final_status", "-pk"))
        return self.filter(job_id=job_id, pk__gte=first, pk__lte=last)

    def _ends_of_job(self, job_id: int, *order: str) -> list[models.Subquery]:
        """The first id, in an order that the index tasks_of_job has, for each final status."""
        tasks = cast(models.QuerySet, self.model._default_manager.filter(job_id=job_id))
        by_status = [tasks.filter(final_status=status) for status in (None, *sorted(TERMINAL))]
        return [models.Subquery(some.order_by(*order).values("pk")[:1]) for some in by_status]

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
