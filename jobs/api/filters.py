from collections.abc import Iterable
from typing import Any, cast

import django_filters
from django import forms
from django.db.models import Exists, OuterRef, Q, QuerySet
from drf_spectacular.utils import extend_schema_field

from jobs.api.fields import instant
from jobs.models import Attempt, Lease
from jobs.states import Status


class CommaOrRepeated(forms.SelectMultiple):
    """`?status=done,failed` and `?status=done&status=failed` say the same."""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[str]:
        return [part for value in data.getlist(name) for part in value.split(",")]


class ChoicesField(forms.MultipleChoiceField):
    widget = CommaOrRepeated

    def validate(self, value: list[str]) -> None:
        known = [choice for choice, _ in cast(Iterable, self.choices)]
        for given in value:
            if given not in known:
                raise forms.ValidationError(
                    f"there is no {given[:40]!r}; there are {', '.join(known)}"
                )


class ChoicesFilter(django_filters.MultipleChoiceFilter):
    field_class = ChoicesField


@extend_schema_field({"type": "string", "minLength": 1})
class TextFilter(django_filters.CharFilter):
    pass


@extend_schema_field(int)
class IntegerFilter(django_filters.NumberFilter):
    field_class = forms.IntegerField

    def get_max_validator(self) -> None:
        """Django answers a number that its column cannot hold with no rows."""


class InstantField(forms.CharField):
    def to_python(self, value: str | None) -> Any:
        if not value:
            return None
        moment = instant(value)
        if moment is None:
            raise forms.ValidationError(
                "give a time with its offset from UTC, such as 2030-01-31T08:00:00Z (a + is "
                "written %2B)"
            )
        return moment


class InstantFilter(django_filters.IsoDateTimeFilter):
    field_class = InstantField


class JobFilter(django_filters.FilterSet):
    name = TextFilter()
    queue = TextFilter()
    created_after = InstantFilter(field_name="created_at", lookup_expr="gt")


class TaskOfJobFilter(django_filters.FilterSet):
    status = ChoicesFilter(choices=Status.choices, method="in_status")
    worker = IntegerFilter(method="of_worker", label="Id of a worker that has or had an attempt.")
    name = TextFilter()
    priority_min = IntegerFilter(field_name="priority", lookup_expr="gte")
    created_after = InstantFilter(field_name="created_at", lookup_expr="gt")

    def in_status(self, queryset: Any, name: str, statuses: list[str]) -> QuerySet:
        return queryset.in_status(*statuses) if statuses else queryset

    def of_worker(self, queryset: QuerySet, name: str, worker_id: int) -> QuerySet:
        holds = Lease.objects.filter(worker_id=worker_id).values("task_id")
        tried = Attempt.objects.filter(task_id=OuterRef("pk"), worker_id=worker_id)
        return queryset.filter(Q(pk__in=holds) | Q(Exists(tried)))


class TaskFilter(TaskOfJobFilter):
    job = IntegerFilter(method="of_job")
    queue = TextFilter()

    def of_job(self, queryset: Any, name: str, job_id: int) -> QuerySet:
        return queryset.of_job(job_id)
