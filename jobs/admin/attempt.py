from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from dtsproject import show
from dtsproject.admin_base import ChoicesDropdownFilter, ReadOnlyAdmin
from jobs.admin.output import tails
from jobs.describe import title
from jobs.models import Attempt


@admin.register(Attempt)
class AttemptAdmin(ReadOnlyAdmin):
    list_display = ("ended_as", "number_of", "task_title", "on", "took", "status", "says", "ended")
    list_display_links = ("number_of",)
    list_filter = (("outcome", ChoicesDropdownFilter),)
    search_help_text = "An attempt's id, or task:12 worker:alpha"
    bare = "task__name__startswith"
    qualifiers = {"task": "task_id", "worker": "worker__name"}
    selective = frozenset({"task"})
    change_form_template = "admin/dts/attempt.html"
    empty_hint = "manage.py run_worker: nothing has been run yet"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Attempt]:
        return super().get_queryset(request).select_related("task", "worker")

    def page(self, request: HttpRequest, obj: Attempt) -> dict[str, Any]:
        return {
            "attempt": obj,
            "title": f"Attempt {obj.number} of task #{obj.task_id}",
            "task_title": title(obj.task),
            "took": obj.ended_at - obj.started_at,
            "streams": tails(obj.task_id, obj.fencing_token),
            "last_attempt": obj,
        }

    @admin.display(description="Outcome")
    def ended_as(self, attempt: Attempt) -> SafeString:
        return show.badge(attempt.outcome)

    @admin.display(description="Attempt")
    def number_of(self, attempt: Attempt) -> str:
        return f"{attempt.number} of #{attempt.task_id}"

    @admin.display(description="Task")
    def task_title(self, attempt: Attempt) -> SafeString:
        url = reverse("admin:jobs_task_change", args=[attempt.task_id])
        return show.link(url, title(attempt.task))

    @admin.display(description="Worker")
    def on(self, attempt: Attempt) -> str | SafeString:
        worker = attempt.worker
        if worker is None:
            return "-"
        return show.link(reverse("admin:workers_worker_change", args=[worker.pk]), worker)

    @admin.display(description="Took")
    def took(self, attempt: Attempt) -> str:
        return show.duration(attempt.ended_at - attempt.started_at)

    @admin.display(description="Exit")
    def status(self, attempt: Attempt) -> str:
        if attempt.signal is not None:
            return f"signal {attempt.signal}"
        return "-" if attempt.exit_code is None else str(attempt.exit_code)

    @admin.display(description="Error")
    def says(self, attempt: Attempt) -> str:
        return Truncator(attempt.error).chars(60) or "-"

    @admin.display(description="Ended")
    def ended(self, attempt: Attempt) -> str | SafeString:
        return show.ago(attempt.ended_at)
