import json
from collections.abc import Mapping
from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from dtsproject import show
from dtsproject.admin_base import ReadOnlyAdmin, selected
from dtsproject.errors import Refusal
from jobs import audit, describe
from jobs.admin import wording
from jobs.models import AuditEvent, Task
from jobs.secrets import masked_job
from jobs.states import Kind
from scheduling import schedules
from scheduling.api.serializers import next_runs, words
from scheduling.models import Firing, Schedule
from scheduling.schedule_form import ScheduleForm

SHOWN_FIRINGS = 50
SHOWN_EVENTS = 20
SHOWN_TASKS = 50


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin):
    list_display = ("state_of", "name", "when", "next_run", "last_run", "why")
    list_display_links = ("name",)
    search_help_text = "The beginning of a schedule's name"
    ordering: tuple[str, ...] = ("name",)
    actions = ("pause", "resume", "fire")
    form = ScheduleForm
    change_form_template = "admin/dts/schedule.html"
    empty_hint = "manage.py schedule create --help, or the button above"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("scheduling.add_schedule")

    def save_model(self, request: HttpRequest, obj: Schedule, form: Any, change: bool) -> None:
        by, source = request.user.get_username(), request.META.get("REMOTE_ADDR") or ""
        with transaction.atomic():
            made = schedules.create(form.values, created_by=by)
            audit.record(by, "create", [f"schedule {made.pk}"], source, name=made.name)
        obj.pk = made.pk

    def response_add(self, request: HttpRequest, obj: Schedule, *args: Any) -> HttpResponse:
        """Its page, which shows the next five runs."""
        self.message_user(request, f"Made {obj.name}.", messages.SUCCESS)
        return redirect(reverse("admin:scheduling_schedule_change", args=[obj.pk]))

    def windowed(self, request: HttpRequest) -> bool:
        return False  # schedules are few, beside tasks

    @admin.display(description="State")
    def state_of(self, schedule: Schedule) -> SafeString:
        return show.badge(schedule.state)

    @admin.display(description="When")
    def when(self, schedule: Schedule) -> str:
        return f"{words(schedule) or schedule.cron} ({schedule.time_zone})"

    @admin.display(description="Next")
    def next_run(self, schedule: Schedule) -> str | SafeString:
        return show.ago(schedule.next_run_at)

    @admin.display(description="Last")
    def last_run(self, schedule: Schedule) -> str | SafeString:
        if schedule.last_job_id is None:
            return "-"
        url = reverse("admin:jobs_job_change", args=[schedule.last_job_id])
        return show.link(url, show.ago(schedule.last_run_at))

    @admin.display(description="Paused because")
    def why(self, schedule: Schedule) -> str:
        return Truncator(schedule.paused_reason).chars(60) or "-"

    # -- a schedule's page -------------------------------------------------------------------

    def fitting(self, obj: Schedule) -> set[str]:
        return {"resume", "fire"} if obj.paused_at else {"pause", "fire"}

    def page(self, request: HttpRequest, obj: Schedule) -> dict[str, Any]:
        firings = Firing.objects.filter(schedule=obj).order_by("-id")[:SHOWN_FIRINGS]
        events = AuditEvent.objects.filter(target=f"schedule {obj.pk}").order_by("-id")
        template = masked_job(obj.template)
        return {
            "schedule": obj,
            "title": f"Schedule {obj.name}",
            "words": words(obj),
            "next_runs": [f"{run:%a %Y-%m-%d %H:%M:%S %Z}" for run in next_runs(obj)],
            "template": template,
            "tasks": list(map(task_of, template.get("tasks", [])[:SHOWN_TASKS])),
            "json": json.dumps(template, indent=2, ensure_ascii=False),
            "firings": firings,
            "events": events[:SHOWN_EVENTS],
        }

    # -- what people may do ------------------------------------------------------------------

    @admin.action(description="Pause", permissions=["act"])
    def pause(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        return self._each(request, "pause", "Paused", schedules.pause)

    @admin.action(description="Resume", permissions=["act"])
    def resume(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        return self._each(request, "resume", "Resumed", schedules.resume)

    @admin.action(description="Fire now", permissions=["act"])
    def fire(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        return self._each(request, "fire", "Submitted the job of", schedules.fire)

    def _each(self, request: HttpRequest, verb: str, said: str, act: Any) -> HttpResponse | None:
        """One transaction for each: a schedule that refuses keeps none of the others."""
        done = 0
        for pk in selected(request):
            try:
                with wording.recorded(request, verb, [f"schedule {pk}"]):
                    act(pk)
                done += 1
            except Refusal as refusal:
                messages.warning(request, refusal.detail)
        return self.answer(request, f"{said} {wording.plural(done, 'schedule')}.")


def task_of(described: Mapping[str, Any]) -> dict[str, Any]:
    """A task of a template, for a table."""
    task = Task(kind=described.get("kind", Kind.SHELL), payload=described.get("payload"))
    parents = [
        it.get("key", it.get("task")) if isinstance(it, Mapping) else it
        for it in described.get("depends_on", [])
    ]
    name = described.get("name") or described.get("key")
    return {"name": name, "command": describe.command(task), "parents": parents}
