"""List filters that an index or a bounded look-up answers; none lists every row of a table."""

import re
from collections.abc import Iterable
from typing import Any

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.db.models import QuerySet
from django.http import HttpRequest

from dtsproject.admin_base import DropdownFilter, TextFilter
from dtsproject.bounded import newest
from dtsproject.show import words
from jobs.models import Attempt, Lane, Lease, Task
from jobs.states import Status

RECENT_ATTEMPTS = 20_000
MOST_TASKS = 1_000


class QueueFilter(DropdownFilter):
    title = parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> Iterable[tuple[str, str]]:
        # Lanes are few, and every queue that was ever used has one.
        names = Lane.objects.order_by("queue").values_list("queue", flat=True).distinct()
        return [(name, name) for name in names]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(queue=self.value()) if self.value() else queryset


class StatusFilter(DropdownFilter):
    title = parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> Iterable[tuple[str, str]]:
        return [(status.value, words(status)) for status in Status]

    def queryset(self, request: HttpRequest, queryset: Any) -> QuerySet:
        return queryset.in_status(self.value()) if self.value() else queryset


class JobFilter(TextFilter):
    title, parameter_name = "job id", "job"

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        value = (self.value() or "").removeprefix("#")
        if not value:
            return queryset
        if not re.fullmatch(r"\d{1,18}", value):
            messages.warning(request, f"{value} is not the number of a job.")
            return queryset.none()
        return queryset.filter(job_id=value)


class WorkerFilter(TextFilter):
    title, parameter_name = "worker name", "worker"

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return of_worker(queryset, self.value()) if self.value() else queryset


class FinishedFilter(DropdownFilter):
    title, parameter_name = "state", "finished"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> Iterable[tuple[str, str]]:
        return [("no", "unfinished"), ("yes", "finished")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.value() not in ("no", "yes"):
            return queryset
        return queryset.filter(finished_at__isnull=self.value() == "no")


def of_worker(queryset: QuerySet[Task], name: str) -> QuerySet[Task]:
    """Tasks that the worker of this name runs, or tried lately."""
    leases = Lease.objects.filter(worker__name=name).values_list("task_id", flat=True)
    tried = newest(Attempt.objects.filter(worker__name=name), RECENT_ATTEMPTS).order_by("-pk")
    ids = {*leases[:MOST_TASKS], *tried.values_list("task_id", flat=True)[:MOST_TASKS]}
    return queryset.filter(pk__in=ids)
