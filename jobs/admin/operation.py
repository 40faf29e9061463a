from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.safestring import SafeString

from dtsproject import show
from dtsproject.admin_base import ReadOnlyAdmin, selected
from dtsproject.bounded import Count
from jobs import audit, operations
from jobs.admin import wording
from jobs.admin.operation_form import OperationForm
from jobs.admin.task import SHOWN_EVENTS
from jobs.models import AuditEvent, Operation


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin):
    list_display = ("state_of", "title", "of", "progress", "requested_by", "asked")
    list_display_links = ("title",)
    search_help_text = "An operation's id, or by:alice action:cancel"
    bare = "action"
    qualifiers = {"by": "requested_by", "action": "action"}
    actions = ("cancel",)
    form = OperationForm
    change_form_template = "admin/dts/operation.html"
    empty_hint = "the button above, POST /api/v1/operations, or cancel or retry a large job"

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whoever may cancel any task may cancel many."""
        return request.user.has_perm("jobs.change_task")

    def save_model(self, request: HttpRequest, obj: Operation, form: Any, change: bool) -> None:
        by, source = request.user.get_username(), request.META.get("REMOTE_ADDR") or ""
        obj.requested_by = by
        with transaction.atomic():
            operations.begin(obj)
            target = f"operation {obj.pk}"
            audit.record(by, obj.action, [target], source, **operations.detail(obj))

    def response_add(self, request: HttpRequest, obj: Operation, *args: Any) -> HttpResponse:
        self.message_user(request, "It goes on in the background.", messages.SUCCESS)
        return redirect(reverse("admin:jobs_operation_change", args=[obj.pk]))

    @admin.display(description="State")
    def state_of(self, operation: Operation) -> SafeString:
        return show.badge(operation.state)

    @admin.display(description="Operation")
    def title(self, operation: Operation) -> str:
        return f"#{operation.pk} {operation.action} {operation.target}"

    @admin.display(description="Of")
    def of(self, operation: Operation) -> str:
        return described(operation)

    @admin.display(description="Tasks")
    def progress(self, operation: Operation) -> str:
        return far(operation)

    @admin.display(description="Asked for")
    def asked(self, operation: Operation) -> str | SafeString:
        return show.ago(operation.created_at)

    def fitting(self, obj: Operation) -> set[str]:
        return set() if obj.ended_at else {"cancel"}

    def page(self, request: HttpRequest, obj: Operation) -> dict[str, Any]:
        events = AuditEvent.objects.filter(target=f"operation {obj.pk}").order_by("-id")
        return {
            "operation": obj,
            "title": f"Operation #{obj.pk}",
            "of": described(obj),
            "far": far(obj),
            "took": obj.ended_at - obj.started_at if obj.ended_at and obj.started_at else None,
            "events": events[:SHOWN_EVENTS],
        }

    @admin.action(description="Cancel", permissions=["act"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Operation]) -> HttpResponse | None:
        done = 0
        for pk in selected(request):
            try:
                with wording.recorded(request, "cancel", [f"operation {pk}"]):
                    operations.cancel(pk)
                done += 1
            except operations.Ended as refusal:
                messages.warning(request, refusal.detail)
        return self.answer(request, f"Cancelled {wording.plural(done, 'operation')}.")


def described(operation: Operation) -> str:
    """What its filter says, for people."""
    values = operation.filter.items()
    said = ", ".join(
        f"{k} {', '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in values
    )
    return said or "all"


def far(operation: Operation) -> str:
    return f"{operation.done:,} of {Count(operation.total, operations.COUNTED)}"
