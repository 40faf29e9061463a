"""What the clients' door shows."""

from typing import Any

from django.db.models import F
from django.http import QueryDict
from drf_spectacular.utils import extend_schema_field, inline_serializer
from rest_framework import serializers

from dtsproject.errors import InvalidQuery
from jobs.api.fields import StrictSerializer
from jobs.api.payloads import ShownPayload
from jobs.api.retries import ShownRules
from jobs.api.submissions import UniqueKey
from jobs.models import Attempt, Dependency, Job, Limit, Queue, Task
from jobs.secrets import MASK
from jobs.states import Status

# Those of a task, from which it follows, and two more (jobs/counts.py).
JOB_STATES = [*Status.values, "cancelling", "paused"]


class TaskSerializer(serializers.ModelSerializer):
    payload = ShownPayload(help_text=f"Each secret value in its env is {MASK} here.")
    retry = ShownRules()

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
            "slots",
            "run_after",
            "timeout_seconds",
            "max_retries",
            "retry",
            "deadline_seconds",
            "deadline_at",
            "key",
            "dependency_count",
            "concurrency_key",
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


class DependencySerializer(serializers.ModelSerializer):
    task = serializers.IntegerField(source="depends_on_id", help_text="Its id.")
    key = serializers.CharField(help_text="Its key in its job, if it has one.")

    class Meta:
        model = Dependency
        fields = ["task", "key", "on_failure", "met"]
        read_only_fields = fields


class TaskDetailSerializer(TaskSerializer):
    depends_on = serializers.SerializerMethodField()

    class Meta(TaskSerializer.Meta):
        fields = [*TaskSerializer.Meta.fields, "depends_on"]
        read_only_fields = fields

    @extend_schema_field(DependencySerializer(many=True))
    def get_depends_on(self, task: Task) -> Any:
        if not task.dependency_count:
            return []
        edges = Dependency.objects.filter(task=task).annotate(key=F("depends_on__key"))
        return DependencySerializer(edges.order_by("depends_on_id"), many=True).data


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
    unique = UniqueKey(read_only=True, allow_null=True)

    class Meta:
        model = Job
        fields = [
            "id",
            "name",
            "queue",
            "labels",
            "unique",
            "submitted_by",
            "state",
            "created_at",
            "paused_at",
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


class WarningSerializer(serializers.Serializer):
    """Tasks that wait until a worker comes that can run them."""

    pointer = serializers.CharField(help_text="The first of them: #/tasks/0.")
    tasks = serializers.IntegerField(help_text="How many there are.")
    detail = serializers.CharField(help_text="What no live worker has.")


class SubmittedJobSerializer(JobDetailSerializer):
    warnings = WarningSerializer(many=True)

    class Meta(JobDetailSerializer.Meta):
        fields = [*JobDetailSerializer.Meta.fields, "warnings"]
        read_only_fields = fields


class QueueSerializer(serializers.ModelSerializer):
    class Meta:
        model = Queue
        fields = ["id", "name", "paused_at", "max_running"]
        read_only_fields = fields


class LimitSerializer(serializers.ModelSerializer):
    class Meta:
        model = Limit
        fields = ["id", "key", "max_running", "rate_count", "rate_seconds", "changed_at"]
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
