from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db import transaction
from django.db.models import QuerySet, Value, Window
from django.db.models.functions import RowNumber
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from dtsproject import show
from dtsproject.admin_base import ReadOnlyAdmin, selected
from dtsproject.conf import conf
from jobs import queue
from jobs.admin import wording
from jobs.admin.filters import FinishedFilter, QueueFilter
from jobs.admin.task import SHOWN_EVENTS
from jobs.counts import progress, with_progress
from jobs.describe import far
from jobs.models import AuditEvent, Dependency, Job, Task
from jobs.models.operation import Action
from jobs.operations import of_large_job
from jobs.states import OnFailure, Status

SHOWN_TASKS = 100
SHOWN_PARENTS = 3
BEGUN = "It goes on in the background."


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    list_display = ("state", "title", "far", "queue", "submitted_by", "created")
    list_display_links = ("title",)
    list_filter = (FinishedFilter, QueueFilter)
    search_help_text = "A job's id, the beginning of its name, or queue:gpu by:alice"
    qualifiers = {"queue": "queue", "by": "submitted_by"}
    served = frozenset({"finished"})
    actions = ("cancel", "retry", "pause", "resume")
    dangerous = frozenset({"cancel"})
    list_after_template = "admin/dts/legend.html"
    change_form_template = "admin/dts/job.html"
    empty_hint = "manage.py submit --help, or POST /api/v1/jobs"

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        changelist = super().get_changelist_instance(request)
        with_progress(changelist.result_list)
        return changelist

    @admin.display(description="State")
    def state(self, job: Any) -> SafeString:
        return show.badge(job.progress.state(job))

    @admin.display(description="Job")
    def title(self, job: Job) -> str:
        return f"#{job.pk} {job.name}"

    @admin.display(description="Tasks")
    def far(self, job: Any) -> SafeString:
        return far(job.progress)

    @admin.display(description="Submitted")
    def created(self, job: Job) -> str | SafeString:
        return show.ago(job.created_at)

    # -- a job's page ------------------------------------------------------------------------

    def fitting(self, obj: Any) -> set[str]:
        (counts,) = progress([obj.pk], cap=1).values()
        live = counts[Status.PENDING] or counts[Status.QUEUED] or counts[Status.IN_PROGRESS]
        fits = {"resume"} if obj.paused_at else {"pause"} if live else set()
        fits |= {"cancel"} if live and not obj.cancelled_at else set()
        return fits | {"retry"} if counts[Status.FAILED] or counts[Status.CANCELLED] else fits

    def page(self, request: HttpRequest, obj: Job) -> dict[str, Any]:
        counts = progress([obj.pk], cap=conf().max_tasks_per_stream)[obj.pk]
        tasks = urgent_first(obj)
        return {
            "job": obj,
            "title": f"Job #{obj.pk}",
            "progress": counts,
            "state": counts.state(obj),
            "took": obj.finished_at - obj.created_at if obj.finished_at else None,
            "tasks": tasks,
            "has_dependencies": with_parents(tasks),
            "tasks_cut": counts.total.value > len(tasks),
            "events": AuditEvent.objects.filter(target=f"job {obj.pk}").order_by("-id")[
                :SHOWN_EVENTS
            ],
        }

    # -- what people may do ------------------------------------------------------------------

    @admin.action(description="Cancel", permissions=["act"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Job]) -> HttpResponse | None:
        ids = in_one_go(request, Action.CANCEL)
        left_in: dict[int, str] = {}
        for pk in ids:
            # A transaction for each: across jobs, locks would not be taken in order of task id.
            with wording.recorded(request, "cancel", [f"job {pk}"]):
                left_in |= queue.cancel_job(pk)
        return self.answer(request, wording.cancelled(None, left_in) if ids else BEGUN)

    @admin.action(description="Retry failed", permissions=["act"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Job]) -> HttpResponse | None:
        ids = in_one_go(request, Action.RETRY)
        failed = Task.objects.in_status(Status.FAILED, Status.CANCELLED).filter(job_id__in=ids)
        tasks = list(failed.values_list("pk", flat=True))
        sentence = wording.retry(request, [f"job {pk}" for pk in ids], tasks)
        return self.answer(request, sentence if ids else BEGUN)

    @admin.action(description="Pause", permissions=["act"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Job]) -> HttpResponse | None:
        held = hold(request, "pause", queue.pause_job)
        return self.answer(request, f"{held} paused; what runs goes on.")

    @admin.action(description="Resume", permissions=["act"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Job]) -> HttpResponse | None:
        return self.answer(request, f"{hold(request, 'resume', queue.resume_job)} resumed.")


def in_one_go(request: HttpRequest, action: Action) -> list[int]:
    """Of the jobs ticked, those that are not too large; the others become operations."""
    small = []
    for job in Job.objects.filter(pk__in=selected(request)).order_by("pk"):
        with transaction.atomic():
            operation = of_large_job(job, action, request.user.get_username())
            if operation:
                wording.note(request, action, [f"job {job.pk}"])
        if operation is None:
            small.append(job.pk)
            continue
        url = reverse("admin:jobs_operation_change", args=[operation.pk])
        messages.info(request, format_html("{} goes on as {}.", job, show.link(url, operation)))
    return small


def hold(request: HttpRequest, action: str, verb: Callable[[int], bool]) -> str:
    """Pauses or resumes the jobs ticked; says how many were not so before."""
    changed = 0
    for pk in selected(request):
        with transaction.atomic():
            if verb(pk):
                wording.note(request, action, [f"job {pk}"])
                changed += 1
    return wording.plural(changed, "job")


def with_parents(tasks: Sequence[Any]) -> bool:
    """Gives each of these tasks its `parents`, the first few by name, with a star where it starts
    whatever becomes of them; whether there are any."""
    edges = Dependency.objects.filter(task__in=[t.pk for t in tasks if t.dependency_count])
    nth = Window(RowNumber(), partition_by="task_id", order_by="depends_on_id")
    names: dict[int, list[str]] = {}
    for child, parent, on_failure, key, name in (
        edges.annotate(nth=nth)
        .filter(nth__lte=SHOWN_PARENTS)
        .values_list(
            "task_id", "depends_on_id", "on_failure", "depends_on__key", "depends_on__name"
        )
    ):
        star = "*" if on_failure == OnFailure.RUN else ""
        names.setdefault(child, []).append(f"{key or name or f'#{parent}'}{star}")
    for task in tasks:
        task.parents = names.get(task.pk, [])
        if task.dependency_count > SHOWN_PARENTS:
            task.parents.append("...")
    return bool(names)


def urgent_first(job: Job) -> list[Any]:
    """Up to SHOWN_TASKS of the job's tasks: failed, live, cancelled, done; each found by index."""
    groups = ((Status.FAILED, "-pk"), (None, "pk"), (Status.CANCELLED, "-pk"), (Status.DONE, "-pk"))
    parts = [
        Task.objects.filter(job=job, final_status=status)
        .annotate(rank=Value(rank))
        .order_by("final_status", order)
        .values_list("rank", "pk")[:SHOWN_TASKS]
        for rank, (status, order) in enumerate(groups)
    ]
    ranks = {pk: rank for rank, pk in parts[0].union(*parts[1:], all=True)}
    ids = sorted(ranks, key=lambda pk: (ranks[pk], pk))[:SHOWN_TASKS]
    tasks = Task.objects.filter(pk__in=ids).select_related("assigned_worker")
    running_first = {Status.IN_PROGRESS: 0, Status.QUEUED: 1}
    return sorted(
        tasks, key=lambda task: (ranks[task.pk], running_first.get(task.status, 2), task.pk)
    )
