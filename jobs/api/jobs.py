"""The clients' door to jobs: submit, look, cancel, retry, pause."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from django.db import transaction
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from dtsproject.conf import conf
from dtsproject.openapi import refused
from jobs import counts, intake, operations, placement, queue, uniqueness
from jobs.api.base import WRONG_STATE, ApiViewSet
from jobs.api.filters import JobFilter, TaskOfJobFilter
from jobs.api.lines import MEDIA_TYPE, Lines, job_of, place
from jobs.api.operations import BEGUN, begun
from jobs.api.serializers import (
    JobDetailSerializer,
    JobSerializer,
    SubmittedJobSerializer,
    TaskSerializer,
)
from jobs.api.submissions import JobSubmission, NewPriority, job_spec
from jobs.authentication import access
from jobs.delay import delay
from jobs.models import Dependency, Job, Operation, Task
from jobs.models.operation import Action
from jobs.placement import Warned
from jobs.specs import JobSpec, Parent, TaskSpec
from jobs.spooled import Spooled
from jobs.states import Status

DEMO = OpenApiExample(
    "Two tasks, one of them urgent",
    value={
        "name": "demo-batch",
        "tasks": [
            {"payload": {"cmd": "echo low"}, "priority": 10},
            {"payload": {"cmd": "echo HIGH"}, "priority": 90},
        ],
    },
    request_only=True,
    media_type="application/json",
)
LINES = {
    "type": "string",
    "format": "binary",
    "description": "First the job without its tasks, then each task, a JSON object a line.",
}
DEMO_LINES = OpenApiExample(
    "The same line by line",
    value='{"name": "demo-batch"}\n{"payload": {"cmd": "echo low"}, "priority": 10}\n'
    '{"payload": {"cmd": "echo HIGH"}, "priority": 90}\n',
    request_only=True,
    media_type=MEDIA_TYPE,
)
IDEMPOTENCY = [
    OpenApiParameter(
        "Idempotency-Key",
        {"type": "string", "pattern": f"^({intake.KEY.pattern})$"},
        OpenApiParameter.HEADER,
        description="New for each job, such as a UUID; remembered for DTS_IDEMPOTENCY_HOURS (24).",
    ),
    OpenApiParameter(
        "Idempotent-Replayed",
        {"type": "string", "const": "true"},
        OpenApiParameter.HEADER,
        response=[200, 201],
        description="There where an earlier submit had made the job.",
    ),
]
OF_MANY = f"Of more than {operations.LARGE_JOB:,} tasks it becomes an operation (202)."
SUBMITTED = {
    201: SubmittedJobSerializer,
    200: OpenApiResponse(JobDetailSerializer, description="Another, which it joined: see unique."),
    **refused(
        409,
        "idempotency_key_in_use: the first submit with this key goes on; or duplicate: another job "
        "holds its unique key, `job_id`.",
    ),
    **refused(
        422,
        "too_many_lanes: too many distinct requirements and slots; bad_dependency: a task of "
        "another job is not there, or has failed; or idempotency_key_reused: another body had this "
        "key.",
    ),
    **refused(429, "overloaded: too much waits, or the database is slow; see Retry-After."),
}


def with_state(jobs: Sequence[Job], *, cap: int = 0) -> Sequence[Job]:
    """The jobs, each with its `state` and its tasks' `counts`, which stop above `cap`."""
    found = counts.progress([job.pk for job in jobs], cap=cap)
    for job in jobs:
        progress = found[job.pk]
        job.state = progress.state(job)  # type: ignore[attr-defined]
        job.counts = {s: progress[s].value for s in Status}  # type: ignore[attr-defined]
    return jobs


def spec_of(job: Job) -> JobSpec:
    """The job as it was submitted."""
    names = [name for name in TaskSpec._fields if name != "depends_on"]
    parents = parents_of(job)
    rows = Task.objects.filter(job=job).order_by("pk").values_list("pk", *names).iterator()
    tasks = Spooled.of(
        TaskSpec(**dict(zip(names, row, strict=True)), depends_on=parents.get(pk, ()))
        for pk, *row in rows
    )
    return JobSpec(
        name=job.name, queue=job.queue, labels=job.labels, unique=uniqueness.of(job), tasks=tasks
    )


def parents_of(job: Job) -> dict[int, list[Parent]]:
    """What each of the job's tasks depends on, by the task's id, in the job's own words."""
    found: dict[int, list[Parent]] = {}
    edges = Dependency.objects.filter(task__job=job).order_by("task_id", "depends_on_id")
    for child, parent, job_id, key, on_failure in edges.values_list(
        "task_id", "depends_on_id", "depends_on__job_id", "depends_on__key", "on_failure"
    ):
        name = key if job_id == job.pk else parent
        found.setdefault(child, []).append(Parent(name, on_failure))
    return found


def submitted(job: Job, tasks: int, warned: Sequence[Warned]) -> dict[str, Any]:
    """The job as it came in, in JSON: what its submit answers, however often it is sent, but for
    the warnings, which are of now."""
    job.state = Status.PENDING  # type: ignore[attr-defined]
    job.counts = {s: tasks if s == Status.PENDING else 0 for s in Status}  # type: ignore[attr-defined]
    job.warnings = warned  # type: ignore[attr-defined]
    return SubmittedJobSerializer(job).data


@extend_schema_view(
    list=extend_schema(summary="List jobs, newest first"),
    retrieve=extend_schema(summary="Show a job", responses=JobDetailSerializer),
)
class JobViewSet(RetrieveModelMixin, ListModelMixin, ApiViewSet):
    queryset = Job.objects.all()
    serializer_class = JobSerializer
    filterset_class = JobFilter
    scope = "submit"

    def paginate_queryset(self, queryset: Any) -> Any:
        rows = super().paginate_queryset(queryset)
        return with_state(rows) if rows and isinstance(rows[0], Job) else rows

    @extend_schema(
        summary="Submit a job",
        description="All of it is stored, or nothing. Where an answer is lost, send the same again "
        "with the same Idempotency-Key: there is one job, answered as the first time. More than "
        "100,000 tasks go line by line.",
        request={"application/json": JobSubmission, MEDIA_TYPE: LINES},
        parameters=IDEMPOTENCY,
        responses=SUBMITTED,
        examples=[DEMO, DEMO_LINES],
    )
    def create(self, request: Request) -> Response:
        if request.content_type.partition(";")[0].strip().lower() == MEDIA_TYPE:
            with place():
                lines = Lines(request)
                return self.take_in(job_of(lines), lines.finish)
        return self.take_in(job_spec(request.data), partial(intake.fingerprint, request.data))

    def take_in(self, spec: JobSpec, fingerprint: Callable[[], str]) -> Response:
        """Stores the job, once for each key and body."""
        caller, given = access(self.request), self.request.headers.get("Idempotency-Key")
        key = None if given is None else intake.Key.of(given, caller.identity, fingerprint())
        warned = placement.warnings(spec)
        with delay.limited(len(spec.tasks)):
            job, replayed = intake.take_in(spec, submitted_by=caller.name, key=key)
        headers = {"Location": reverse("v1:job-detail", [job.pk])}
        if replayed:
            headers["Idempotent-Replayed"] = "true"
        if job.joined:
            return Response(self.detail_of(job).data, headers=headers)
        return Response(submitted(job, len(spec.tasks), warned), status=201, headers=headers)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.detail_of(self.get_object())

    @extend_schema(summary="List a job's tasks", responses=TaskSerializer(many=True))
    @action(detail=True, paged=True, filterset_class=TaskOfJobFilter)
    def tasks(self, request: Request, pk: int) -> Response:
        return self.page(Task.objects.of_job(self.get_object().pk), TaskSerializer)

    @extend_schema(
        summary="Cancel a job",
        description="Tasks that wait are cancelled at once; those that run are asked to end. "
        + OF_MANY,
        request=None,
        responses={200: JobDetailSerializer, **BEGUN} | WRONG_STATE,
    )
    @action(detail=True, methods=["post"], scope="operate")
    def cancel(self, request: Request, pk: int) -> Response:
        job = self.get_object()
        if operation := self.operation(job, Action.CANCEL):
            return begun(operation)
        with transaction.atomic():
            touched = queue.cancel_job(job.pk)
            if not touched:
                self.refuse(job, "all its tasks have ended")
            self.record("cancel", f"job {job.pk}", tasks=len(touched))
        return self.detail_of(self.get_object())

    @extend_schema(
        summary="Change the priority of a job's tasks that have not started",
        description=OF_MANY,
        request=NewPriority,
        responses={200: JobDetailSerializer, **BEGUN} | WRONG_STATE,
    )
    @action(detail=True, methods=["post"], scope="operate", takes_body=True)
    def prioritise(self, request: Request, pk: int) -> Response:
        priority = self.checked(NewPriority).validated_data["priority"]
        job = self.get_object()
        if operation := self.operation(job, Action.PRIORITISE, priority):
            return begun(operation)
        idle = Task.objects.live().filter(job=job).values_list("pk", flat=True)
        with transaction.atomic():
            touched = queue.prioritise(idle, priority)
            if not touched:
                self.refuse(job, "none of its tasks has yet to start")
            self.record("prioritise", f"job {job.pk}", priority=priority, tasks=len(touched))
        return self.detail_of(self.get_object())

    @extend_schema(
        summary="Submit a job again",
        description="A new job of the same tasks, under the same rules as any submit.",
        request=None,
        parameters=IDEMPOTENCY,
        responses=SUBMITTED,
    )
    @action(detail=True, methods=["post"])
    def clone(self, request: Request, pk: int) -> Response:
        same = partial(intake.fingerprint, {"clone": pk})
        return self.take_in(spec_of(self.get_object()), same)

    @extend_schema(
        summary="Retry a job's failed and cancelled tasks",
        description=OF_MANY,
        request=None,
        responses={200: JobDetailSerializer, **BEGUN} | WRONG_STATE,
    )
    @action(detail=True, methods=["post"], scope="operate")
    def retry(self, request: Request, pk: int) -> Response:
        job = self.get_object()
        if operation := self.operation(job, Action.RETRY):
            return begun(operation)
        again = Task.objects.filter(job=job).in_status(Status.FAILED, Status.CANCELLED)
        with transaction.atomic():
            retried = queue.retry(again.values_list("pk", flat=True))
            if not retried:
                self.refuse(job, "none of its tasks has failed or been cancelled")
            self.record("retry", f"job {job.pk}", tasks=len(retried))
        return self.detail_of(self.get_object())

    @extend_schema(
        summary="Pause a job",
        description="Nothing more of it starts until it is resumed; what runs goes on. To pause "
        "what is paused changes nothing.",
        request=None,
        responses={200: JobDetailSerializer} | WRONG_STATE,
    )
    @action(detail=True, methods=["post"], scope="operate")
    def pause(self, request: Request, pk: int) -> Response:
        job = self.get_object()
        with transaction.atomic():
            if queue.pause_job(job.pk):
                self.record("pause", f"job {job.pk}")
            elif not self.get_object().paused_at:
                self.refuse(job, "all its tasks have ended")
        return self.detail_of(self.get_object())

    @extend_schema(
        summary="Resume a job",
        description="To resume what is not paused changes nothing.",
        request=None,
        responses=JobDetailSerializer,
    )
    @action(detail=True, methods=["post"], scope="operate")
    def resume(self, request: Request, pk: int) -> Response:
        job = self.get_object()
        with transaction.atomic():
            if queue.resume_job(job.pk):
                self.record("resume", f"job {job.pk}")
        return self.detail_of(self.get_object())

    def operation(self, job: Job, action: Action, priority: int | None = None) -> Operation | None:
        """Begun where the job is too large for one answer."""
        by = access(self.request).name
        with transaction.atomic():
            made = operations.of_large_job(job, action, by, priority)
            if made:
                self.record(action, f"job {job.pk}", operation=made.pk)
        return made

    def detail_of(self, job: Job) -> Response:
        (job,) = with_state([job], cap=conf().max_tasks_per_stream)
        return Response(JobDetailSerializer(job).data)

    def refuse(self, job: Job, why: str) -> None:
        (job,) = with_state([job])
        state = job.state  # type: ignore[attr-defined]
        raise queue.WrongState(f"Job {job.pk} is {state}: {why}.", state=state)
