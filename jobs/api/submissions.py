"""What the clients' door takes, strictly: the one place for the rules of a job and its tasks.

The API, its OpenAPI document, `manage.py submit` and schedules' templates have them from here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from dtsproject.conf import conf
from jobs.api.fields import (
    NAME_OF_QUEUE,
    Instant,
    Integer,
    Label,
    Requirement,
    Seconds,
    StrictSerializer,
    Text,
)
from jobs.api.payloads import PAYLOADS, PythonPayload, ShellPayload
from jobs.api.retries import RetryRules
from jobs.graph import BadDependency, edges_of
from jobs.labels import MAX_SLOTS
from jobs.specs import JobSpec, Parent, TaskSpec, Unique
from jobs.spooled import Spooled
from jobs.states import Kind, OnDuplicate, OnFailure, Scope

MAX_TIMEOUT_SECONDS = 30 * 24 * 3600
MAX_WINDOW_SECONDS = 366 * 24 * 3600


class DependencySubmission(StrictSerializer):
    default_error_messages = {"which": "Name a task of this job by its key, or any other by task."}

    key = Text(required=False, allow_blank=True, help_text="Of a task of this job.")
    task = Integer(
        required=False, min_value=1, max_value=2**63 - 1, help_text="The id of any other."
    )
    on_failure = serializers.ChoiceField(
        OnFailure.choices,
        required=False,
        help_text="When that task fails or is cancelled, this one is cancelled, too, or runs all "
        "the same. Default: cancel.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("key" in attrs) == ("task" in attrs):
            self.fail("which")
        return attrs


DEPENDENCY = DependencySubmission()


ON_FAILURE = {"type": "string", "enum": OnFailure.values}
A_KEY = {"type": "string", "description": "The key of a task of this job."}
AN_ID = {
    "type": "integer",
    "minimum": 1,
    "maximum": 2**63 - 1,
    "description": "The id of any other task.",
}


def dependency(name: str, of: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: of, "on_failure": ON_FAILURE},
        "required": [name],
        "additionalProperties": False,
    }


@extend_schema_field({"oneOf": [A_KEY, AN_ID, dependency("key", A_KEY), dependency("task", AN_ID)]})
class DependsOn(serializers.Field):
    """A task to wait for, by its key, by its id, or by an object with either."""

    def to_internal_value(self, data: Any) -> Parent:
        if isinstance(data, str):
            return Parent(data)
        is_id = isinstance(data, int) or (isinstance(data, float) and data.is_integer())
        given = {"task": data} if is_id else data
        found = DEPENDENCY.run_validation(given)
        name = found["key"] if "key" in found else found["task"]
        return Parent(name, found.get("on_failure", OnFailure.CANCEL))


class TaskList(serializers.ListSerializer):
    default_error_messages = {"max_length": "A job has at most {max_length} tasks."}

    def to_internal_value(self, data: Any) -> list[dict[str, Any]]:
        self.max_length = conf().max_tasks_per_job
        return super().to_internal_value(data)


class TaskSubmission(StrictSerializer):
    name = Text(required=False, allow_blank=True, max_length=200)
    kind = serializers.ChoiceField(Kind.choices, required=False, help_text="Default: shell.")
    payload: Any = serializers.DictField()
    priority = Integer(
        required=False, min_value=-100, max_value=100, help_text="Higher runs first. Default: 0."
    )
    requires = serializers.ListField(
        child=Requirement(),
        required=False,
        max_length=16,
        help_text="Labels its worker must have, such as gpu, and sizes, such as mem_mb>=2000, "
        "which are rounded up to powers of two.",
    )
    slots = Integer(
        required=False,
        min_value=1,
        max_value=MAX_SLOTS,
        help_text="How many of its worker's slots it takes. Default: 1.",
    )
    run_after = Instant(required=False, allow_null=True)
    timeout_seconds = Seconds(required=False, allow_null=True, max_value=MAX_TIMEOUT_SECONDS)
    max_retries = Integer(required=False, min_value=0, max_value=100, help_text="Default: 0.")
    retry = RetryRules(required=False, allow_null=True)
    deadline_seconds = Seconds(
        required=False,
        allow_null=True,
        max_value=MAX_TIMEOUT_SECONDS,
        help_text="Of all attempts and the waits before and between them, from when it was "
        "submitted, or may first run (run_after). What has not ended then fails.",
    )
    key = Label(
        required=False, max_length=100, help_text="What depends_on calls it; once in a job."
    )
    depends_on = serializers.ListField(
        child=DependsOn(), required=False, help_text="It starts when these tasks have ended."
    )
    concurrency_key = Label(
        required=False, max_length=100, help_text="By what a limit counts it (see limits)."
    )

    class Meta:
        list_serializer_class = TaskList

    def field_for(self, name: str, data: Mapping[str, Any]) -> serializers.Field | None:
        if name == "payload" and isinstance(kind := data.get("kind", Kind.SHELL), str):
            return PAYLOADS.get(kind) or super().field_for(name, data)
        return super().field_for(name, data)


# What follows says in the OpenAPI document which kind has which payload.


@extend_schema_field({"type": "string", "const": Kind.SHELL.value})
class ShellKind(serializers.ChoiceField):
    pass


@extend_schema_field({"type": "string", "const": Kind.PYTHON.value})
class PythonKind(serializers.ChoiceField):
    pass


class ShellTask(TaskSubmission):
    kind = ShellKind(Kind.choices, required=False, help_text="Default: shell.")
    payload = ShellPayload()


class PythonTask(TaskSubmission):
    kind = PythonKind(Kind.choices)
    payload = PythonPayload()


class TaskScheme(OpenApiSerializerExtension):
    target_class = "jobs.api.submissions.TaskSubmission"

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        kinds = (ShellTask, PythonTask)
        return {"oneOf": [auto_schema.resolve_serializer(k, direction).ref for k in kinds]}


class NewPriority(StrictSerializer):
    priority = Integer(min_value=-100, max_value=100, help_text="Higher runs first.")


class UniqueKey(StrictSerializer):
    """Of the jobs with the same key in the same scope, one at a time has not ended."""

    key = Text(max_length=200)
    scope = serializers.ChoiceField(
        Scope.choices, required=False, help_text="Unique in its queue, or in all. Default: queue."
    )
    window_seconds = Seconds(
        required=False,
        allow_null=True,
        max_value=MAX_WINDOW_SECONDS,
        help_text="Held so long after the submit at least. Default: null, until the job ends.",
    )
    on_duplicate = serializers.ChoiceField(
        OnDuplicate.choices,
        required=False,
        help_text="While another job holds the key: reject (409, the default), join (the answer is "
        "that job), or replace (what of it has not started is cancelled).",
    )


class JobHead(StrictSerializer):
    """A job without its tasks."""

    name = Text(max_length=200)
    queue = Label(NAME_OF_QUEUE, required=False, max_length=40, help_text="Default: default.")
    labels = serializers.DictField(child=Text(allow_blank=True, max_length=200), required=False)
    unique = UniqueKey(required=False, allow_null=True)


class JobSubmission(JobHead):
    """All of it."""

    tasks = TaskSubmission(many=True, allow_empty=False)


# To make one, with copies of all its fields, costs more than to check a small job.
SUBMISSION = JobSubmission()


def job_spec(data: object) -> JobSpec:
    """The job that `data`, parsed JSON (see dtsproject.parsers.loads), describes.

    Raises DRF's ValidationError, whose detail names every fault by its place.
    """
    job = SUBMISSION.run_validation(data)
    tasks = [TaskSpec(**task) for task in job["tasks"]]
    try:
        edges_of(tasks)
    except BadDependency as error:
        fault: Any = [serializers.ErrorDetail(error.detail, code=error.code)]
        for step in reversed(error.path):
            fault = {step: fault}
        raise serializers.ValidationError(fault) from error
    return job_spec_of(job, tasks)


def job_spec_of(head: Mapping[str, Any], tasks: Sequence[TaskSpec] | Spooled) -> JobSpec:
    """The job of these values, valid already."""
    unique = head.get("unique")
    return JobSpec(**{**head, "unique": unique and Unique(**unique), "tasks": tasks})
