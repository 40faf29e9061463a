"""What bounds how much runs at once: edited here, by the verbs of jobs/limits.py."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from rest_framework.exceptions import ValidationError

from dtsproject import show
from dtsproject.admin_base import OpsAdmin
from jobs import queue
from jobs.admin import wording
from jobs.api.limits import BAD_KEY_DETAIL, LimitSubmission, QueueChange, is_limit_key
from jobs.limits import standing
from jobs.models import Limit, Queue

BOUNDS = ("max_running", "rate_count", "rate_seconds")


def check(form: forms.ModelForm, rules: type, names: tuple[str, ...]) -> None:
    """Holds a form to the rules of the API; what is wrong is said beside its field."""
    given = {name: form.cleaned_data.get(name) for name in names}
    try:
        rules(data=given).is_valid(raise_exception=True)
    except ValidationError as error:
        for name, faults in error.detail.items():  # type: ignore[union-attr]
            form.add_error(name if name in form.fields else None, [str(f) for f in faults])


class LimitForm(forms.ModelForm):
    class Meta:
        model = Limit
        fields = ("key", *BOUNDS)

    def clean_key(self) -> str:
        if not is_limit_key(self.cleaned_data["key"]):
            raise forms.ValidationError(BAD_KEY_DETAIL)
        return self.cleaned_data["key"]

    def clean(self) -> dict[str, Any]:
        if not self.errors:
            check(self, LimitSubmission, BOUNDS)
        return self.cleaned_data


class QueueForm(forms.ModelForm):
    class Meta:
        model = Queue
        fields = ("max_running",)

    def clean(self) -> dict[str, Any]:
        if not self.errors:
            check(self, QueueChange, ("max_running",))
        return self.cleaned_data


@admin.register(Limit)
class LimitAdmin(OpsAdmin):
    form = LimitForm
    list_display = ("key", "max_running", "rate", "used", "changed")
    search_help_text = "The beginning of a key"
    ordering: tuple[str, ...] = ("key",)
    bare = "key__startswith"
    actions = ()
    empty_hint = "manage.py limit set --help, or PUT /api/v1/limits/KEY"

    def windowed(self, request: HttpRequest) -> bool:
        return False  # limits are few, beside tasks

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("key",) if obj else ()

    def save_model(self, request: HttpRequest, obj: Limit, form: Any, change: bool) -> None:
        values = {name: getattr(obj, name) for name in BOUNDS}
        with transaction.atomic():
            obj.pk = queue.limit_key(obj.key, values)[0].pk
            wording.note(request, "limit", [f"limit {obj.pk}"])

    def delete_model(self, request: HttpRequest, obj: Limit) -> None:
        with wording.recorded(request, "unlimit", [f"limit {obj.pk}"]):
            queue.unlimit_key(obj.key)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Limit]) -> None:
        for limit in queryset:
            self.delete_model(request, limit)

    @admin.display(description="Rate")
    def rate(self, limit: Limit) -> str:
        return f"{limit.rate_count} in {limit.rate_seconds:g} s" if limit.rate_count else "-"

    @admin.display(description="Queued or running")
    def used(self, limit: Limit) -> str:
        found = None if limit.key.endswith("*") else standing(limit.key)
        return str(found.running) if found else "-"

    @admin.display(description="Changed")
    def changed(self, limit: Limit) -> str | SafeString:
        return show.ago(limit.changed_at)


@admin.register(Queue)
class QueueAdmin(OpsAdmin):
    form = QueueForm
    list_display = ("name", "state", "max_running")
    search_help_text = "The beginning of a queue's name"
    ordering: tuple[str, ...] = ("name",)
    actions = ()
    empty_hint = "A queue is made by the first job submitted to it"

    def windowed(self, request: HttpRequest) -> bool:
        return False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Queue, form: Any, change: bool) -> None:
        with wording.recorded(request, "limit", [f"queue {obj.pk}"]):
            queue.limit_queue(obj.name, obj.max_running)

    @admin.display(description="State")
    def state(self, obj: Queue) -> SafeString | str:
        return show.badge("paused") if obj.paused_at else "-"
