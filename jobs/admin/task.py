import json
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from dtsproject import show
from dtsproject.admin_base import ChoicesDropdownFilter, ReadOnlyAdmin, selected
from jobs import queue
from jobs.admin import wording
from jobs.admin.filters import JobFilter, QueueFilter, StatusFilter, WorkerFilter, of_worker
from jobs.admin.output import tails
from jobs.admin.timeline import timeline
from jobs.counts import progress, totals
from jobs.describe import command, ran, title, waited
from jobs.models import Attempt, AuditEvent, Dependency, Task
from jobs.secrets import masked
from jobs.states import TERMINAL, Status

PAGING = {"p", "o", "e"}
# Which the API has, too.
SHARED_FILTERS = {"status", "queue", "job"}
SHOWN_ATTEMPTS = 50
SHOWN_EVENTS = 20
SHOWN_DEPENDENCIES = 50


@admin.register(Task)
class TaskAdmin(ReadOnlyAdmin):
    list_display = (
        "state",
        "title",
        "of_job",
        "queue",
        "priority",
        "tries",
        "worker",
        "wait",
        "run",
        "age",
    )
    list_display_links = ("title",)
    list_filter = (
        StatusFilter,
        QueueFilter,
        ("kind", ChoicesDropdownFilter),
        JobFilter,
        WorkerFilter,
    )
    list_select_related = ("job", "assigned_worker")
    search_help_text = "A task's id, the beginning of its name, or job:5 queue:gpu worker:alpha"
    qualifiers = {"job": "job_id", "queue": "queue", "worker": of_worker}
    served = frozenset({"status"})
    selective = frozenset({"job", "worker"})
    actions = ("cancel", "retry")
    dangerous = frozenset({"cancel"})
    change_form_template = "admin/dts/task.html"
    empty_hint = "manage.py submit --help, or POST /api/v1/jobs"

    @admin.display(description="Status")
    def state(self, task: Task) -> SafeString:
        return show.badge(task.status)

    @admin.display(description="Task")
    def title(self, task: Task) -> str:
        return f"#{task.pk} {title(task)}"

    @admin.display(description="Job")
    def of_job(self, task: Task) -> SafeString:
        text = Truncator(task.job.name).chars(30)
        return show.link(reverse("admin:jobs_job_change", args=[task.job_id]), text)

    @admin.display(description="Attempt")
    def tries(self, task: Task) -> str:
        return f"{task.attempt}" + (
            f" ({task.retry_count}/{task.max_retries} retries)" if task.max_retries else ""
        )

    @admin.display(description="Worker")
    def worker(self, task: Task) -> str | SafeString:
        worker = task.assigned_worker
        return (
            show.link(reverse("admin:workers_worker_change", args=[worker.pk]), worker)
            if worker
            else "-"
        )

    @admin.display(description="Waited")
    def wait(self, task: Task) -> str:
        return show.duration(waited(task))

    @admin.display(description="Ran")
    def run(self, task: Task) -> str:
        return show.duration(ran(task))

    @admin.display(description="Submitted")
    def age(self, task: Task) -> str | SafeString:
        return show.ago(task.created_at)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        more = {"tabs": tabs(request), "operation": operation_url(request)}
        return super().changelist_view(request, {**more, **(extra_context or {})})

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        return super().get_queryset(request).select_related(*self.list_select_related)

    # -- a task's page -----------------------------------------------------------------------

    def fitting(self, obj: Task) -> set[str]:
        if obj.status not in TERMINAL:
            return set() if obj.cancel_requested_at else {"cancel"}
        return set() if obj.status == Status.DONE else {"retry"}

    def page(self, request: HttpRequest, obj: Task) -> dict[str, Any]:
        attempts = list(
            Attempt.objects.filter(task_id=obj.pk)
            .select_related("worker")
            .order_by("-fencing_token")[:SHOWN_ATTEMPTS]
        )
        return {
            "task": obj,
            "title": f"Task #{obj.pk}",
            "name": title(obj),
            "command": command(obj),
            "payload": json.dumps(masked(obj.payload), indent=2, ensure_ascii=False),
            "wait": waited(obj),
            "run": ran(obj),
            "waits": obj.status in (Status.PENDING, Status.QUEUED),
            "steps": timeline(obj, attempts[::-1]),
            "webs": [web for web in (parents(obj), dependents(obj)) if web],
            "attempts": attempts,
            "attempts_cut": len(attempts) == SHOWN_ATTEMPTS,
            "streams": tails(obj.pk, obj.fencing_token),
            "last_attempt": attempts[0] if attempts else None,
            "events": AuditEvent.objects.filter(target=f"task {obj.pk}").order_by("-id")[
                :SHOWN_EVENTS
            ],
        }

    # -- what people may do ------------------------------------------------------------------

    @admin.action(description="Cancel", permissions=["act"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Task]) -> HttpResponse | None:
        ids = selected(request)
        with wording.recorded(request, "cancel", [f"task {pk}" for pk in ids]):
            left_in = queue.cancel(ids)
        return self.answer(request, wording.cancelled(len(ids), left_in))

    @admin.action(description="Retry", permissions=["act"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Task]) -> HttpResponse | None:
        ids = selected(request)
        return self.answer(request, wording.retry(request, [f"task {pk}" for pk in ids], ids))


def operation_url(request: HttpRequest) -> str:
    """Where something can be done to all that the list's filters leave; empty where only the list
    knows what that is."""
    given = {name: value for name, value in request.GET.items() if value and name not in PAGING}
    if not request.user.has_perm("jobs.change_task") or not given.keys() <= SHARED_FILTERS:
        return ""
    given = {name: str(value).removeprefix("#") for name, value in given.items()}
    query = urlencode({"target": "tasks", "filter": json.dumps(given)})
    return f"{reverse('admin:jobs_operation_add')}?{query}"


def parents(task: Task) -> dict[str, Any]:
    """What the task depends on."""
    if not task.dependency_count:
        return {}
    edges = Dependency.objects.filter(task=task)
    return web("Depends on", "depends_on", edges) | {"if_bad": "If it fails, this"}


def dependents(task: Task) -> dict[str, Any]:
    """What depends on the task."""
    if not task.has_dependents:
        return {}
    edges = Dependency.objects.filter(depends_on=task)
    return web("Awaited by", "task", edges) | {"if_bad": "If this fails, it"}


def web(title: str, end: str, edges: QuerySet[Dependency]) -> dict[str, Any]:
    """The first few tasks at that end of the edges, for a table."""
    some = list(edges.select_related(end).order_by(f"{end}_id")[: SHOWN_DEPENDENCIES + 1])
    rows = [(getattr(edge, end), edge) for edge in some[:SHOWN_DEPENDENCIES]]
    return {"title": title, "rows": rows, "cut": len(some) > SHOWN_DEPENDENCIES}


def tabs(request: HttpRequest) -> list[dict[str, Any]]:
    """A link to each status, keeping the other filters, with counts where they are cheap."""
    others = request.GET.copy()
    chosen = others.pop("status", [""])[-1]
    others.pop("p", None)
    filters = {name: str(value) for name, value in others.items() if value}
    counts: Any = None
    if not filters:
        counts = totals()
    elif filters.keys() == {"job"} and filters["job"].isdecimal():
        counts = progress([int(filters["job"][:18])]).get(int(filters["job"][:18]))
    found = []
    for status in ("", *Status.values):
        query = others.copy()
        if status:
            query["status"] = status
        found.append(
            {
                "text": show.words(status) or "all",
                "state": status,
                "url": f"?{query.urlencode()}",
                "chosen": status == chosen,
                "count": counts[status] if counts and status else None,
            }
        )
    return found
