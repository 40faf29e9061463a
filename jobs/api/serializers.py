"""The clients' door in JSON: what it takes (strictly) and what it shows.

The submissions below are the one place for the rules of a job and its tasks: the API, its OpenAPI
document and `manage.py submit` all take them from here.
"""

from collections.abc import Mapping
from typing import Any

from django.http import QueryDict
from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_field, inline_serializer
from rest_framework import serializers

from dtsproject.conf import conf
from dtsproject.errors import InvalidQuery
from jobs.api.fields import NAME_OF_QUEUE, Instant, Integer, Label, Number, StrictSerializer, Text
from jobs.models import Attempt, Job, Queue, Task
from jobs.specs import JobSpec, TaskSpec
from jobs.states import Kind, Status

# Linux passes no longer single argument or variable: MAX_ARG_STRLEN, which counts a final NUL.
MAX_ARGUMENT_BYTES = 128 * 1024 - 1
MAX_TIMEOUT_SECONDS = 30 * 24 * 3600
# Those of a task, from which it follows, and one more (jobs/counts.py).
JOB_STATES = [*Status.values, "cancelling"]
DOTTED_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$"


def fits_an_argument(text: str) -> None:
    if len(text) > MAX_ARGUMENT_BYTES // 4 and len(text.encode()) > MAX_ARGUMENT_BYTES:
        raise serializers.ValidationError(
            f"Linux passes at most {MAX_ARGUMENT_BYTES} bytes; put a long script in a file, or "
            "give it as stdin to `sh`.",
            code="max_length",
        )


def is_environment(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        if not name or "=" in name:
            raise serializers.ValidationError(f"{name!r} cannot name a variable.", code="invalid")
        fits_an_argument(f"{name}={value}")


def positive(seconds: float) -> None:
    if seconds <= 0:
        raise serializers.ValidationError("Give more than 0 seconds.", code="min_value")


class ShellPayload(StrictSerializer):
    cmd = Text(validators=[fits_an_argument], help_text="Run by /bin/sh -c.")
    env = serializers.DictField(
        child=Text(allow_blank=True), required=False, validators=[is_environment]
    )
    cwd = Text(required=False, max_length=4095)
    stdin = Text(required=False, allow_blank=True)


class PythonPayload(StrictSerializer):
    function = Label(DOTTED_PATH, max_length=255, help_text="package.module.function")
    args = serializers.ListField(required=False)
    kwargs = serializers.DictField(required=False)


PAYLOADS: dict[str, StrictSerializer] = {Kind.SHELL: ShellPayload(), Kind.PYTHON: PythonPayload()}


@extend_schema_field(
    PolymorphicProxySerializer("Payload", [ShellPayload, PythonPayload], None, many=False)
)
class Payload(serializers.DictField):
    """Either kind's payload."""


class TaskList(serializers.ListSerializer):
    default_error_messages = {"max_length": "A job has at most {max_length} tasks."}

    def to_internal_value(self, data: Any) -> list[dict[str, Any]]:
        self.max_length = conf().max_tasks_per_job
        return super().to_internal_value(data)


class TaskSubmission(StrictSerializer):
    name = Text(required=False, allow_blank=True, max_length=200)
    kind = serializers.ChoiceField(Kind.choices, required=False, help_text="Default: shell.")
    payload = Payload()
    priority = Integer(
        required=False, min_value=-100, max_value=100, help_text="Higher runs first. Default: 0."
    )
    requires = serializers.ListField(
        child=Label(), required=False, max_length=16, help_text="Labels its worker must have."
    )
    run_after = Instant(required=False, allow_null=True)
    timeout_seconds = Number(
        required=False, allow_null=True, validators=[positive], max_value=MAX_TIMEOUT_SECONDS
    )
    max_retries = Integer(required=False, min_value=0, max_value=100, help_text="Default: 0.")

    class Meta:
        list_serializer_class = TaskList

    def field_for(self, name: str, data: Mapping[str, Any]) -> serializers.Field | None:
        if name == "payload" and isinstance(kind := data.get("kind", Kind.SHELL), str):
            return PAYLOADS.get(kind) or super().field_for(name, data)
        return super().field_for(name, data)


class NewPriority(StrictSerializer):
    priority = Integer(min_value=-100, max_value=100, help_text="Higher runs first.")


class JobHead(StrictSerializer):
    """A job without its tasks."""

    name = Text(max_length=200)
    queue = Label(NAME_OF_QUEUE, required=False, max_length=40, help_text="Default: default.")
    labels = serializers.DictField(child=Text(allow_blank=True, max_length=200), required=False)


class JobSubmission(JobHead):
    """All of it."""

    tasks = TaskSubmission(many=True, allow_empty=False)


def job_spec(data: object) -> JobSpec:
    """The job that `data`, parsed JSON (see dtsproject.parsers.loads), describes.

    Raises DRF's ValidationError, whose detail names every fault by its place.
    """
    submission = JobSubmission(data=data)
    submission.is_valid(raise_exception=True)
    job = submission.validated_data
    return JobSpec(**job | {"tasks": [TaskSpec(**task) for task in job["tasks"]]})


class TaskSerializer(serializers.ModelSerializer):
    class Meta:
        model = Task
        fields = [
            "id",
            "job_id",
            "name",
            "queue",
            "kind",
            "payload",
            "priority",
            "requires",
            "run_after",
            "timeout_seconds",
            "max_retries",
            "status",
            "generation",
            "attempt",
            "retry_count",
            "loss_count",
            "assigned_worker_id",
            "cancel_requested_at",
            "exit_code",
            "result_text",
            "created_at",
            "updated_at",
            "started_at",
            "completed_at",
        ]
        read_only_fields = fields


class AttemptSerializer(serializers.ModelSerializer):
    class Meta:
        model = Attempt
        fields = [
            "id",
            "task_id",
            "generation",
            "number",
            "worker_id",
            "started_at",
            "ended_at",
            "outcome",
            "exit_code",
            "signal",
            "cpu_seconds",
            "peak_memory_bytes",
            "error",
            "output",
        ]
        read_only_fields = fields


class JobSerializer(serializers.ModelSerializer):
    state = serializers.ChoiceField(JOB_STATES, read_only=True)

    class Meta:
        model = Job
        fields = [
            "id",
            "name",
            "queue",
            "labels",
            "submitted_by",
            "state",
            "created_at",
            "cancelled_at",
            "finished_at",
        ]
        read_only_fields = fields


class JobDetailSerializer(JobSerializer):
    counts = inline_serializer(
        "Counts",
        {status: serializers.IntegerField() for status in Status.values},
        help_text="How many of its tasks are in each state.",
    )

    class Meta(JobSerializer.Meta):
        fields = [*JobSerializer.Meta.fields, "counts"]
        read_only_fields = fields


class QueueSerializer(serializers.ModelSerializer):
    class Meta:
        model = Queue
        fields = ["id", "name", "paused_at"]
        read_only_fields = fields


class LogQuery(StrictSerializer):
    stream = serializers.ChoiceField(["stdout", "stderr"], required=False)
    after = serializers.IntegerField(required=False, min_value=0, max_value=2**62)
    attempt = serializers.IntegerField(required=False, min_value=1, max_value=2**31 - 1)

    @classmethod
    def of(cls, parameters: QueryDict) -> dict[str, Any]:
        """What the query parameters say. Raises InvalidQuery."""
        query = cls(data=parameters.dict())
        if not query.is_valid():
            raise InvalidQuery({name: " ".join(e) for name, e in query.errors.items()})
        return query.validated_data


class LogSerializer(serializers.Serializer):
    attempt = serializers.IntegerField(help_text="Its number; 0 before the first.")
    stream = serializers.ChoiceField(["stdout", "stderr"])
    encoding = serializers.ChoiceField(["utf-8", "base64"], help_text="base64 where no UTF-8.")
    data = serializers.CharField(help_text="About 64 KiB from byte offset `after` on.")  # type: ignore[assignment]
    next = serializers.IntegerField(help_text="The byte offset to go on from.")
    ended = serializers.BooleanField(help_text="Nothing more of this attempt can follow.")
    status = serializers.ChoiceField(Status.choices, help_text="Of the task.")
