"""Operations: one verb for all that a filter leaves; asked for, counted, followed, cancelled."""

from typing import Any

from django.db import transaction
from drf_spectacular.utils import (
    OpenApiExample,
    extend_schema,
    extend_schema_field,
    extend_schema_view,
)
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from dtsproject.openapi import refused
from jobs import operations
from jobs.api.base import ApiViewSet
from jobs.api.fields import Boolean, Integer, StrictSerializer
from jobs.authentication import access
from jobs.models import Operation
from jobs.models.operation import Action, Target
from jobs.states import Status

STATES = ["waiting", "running", "done", "cancelled", "failed"]
STATUS = {"type": "string", "enum": Status.values}
FILTERS = {
    "status": {"oneOf": [STATUS, {"type": "array", "items": STATUS, "minItems": 1}]},
    **{name: {"type": "integer"} for name in ("job", "worker", "priority_min")},
    **{name: {"type": "string", "minLength": 1} for name in ("name", "queue")},
    "created_after": {"type": "string", "format": "date-time"},
}


@extend_schema_field({"type": "object", "properties": FILTERS, "additionalProperties": False})
class Filter(serializers.DictField):
    """What the target's list takes as query parameters, as one object."""


class OperationSubmission(StrictSerializer):
    default_error_messages = {
        "missing": "Say which priority the tasks are to have.",
        "unused": "Only prioritise takes a priority.",
    }

    action = serializers.ChoiceField(Action.choices)
    target = serializers.ChoiceField(
        Target.choices,
        help_text="What the filter chooses: tasks, or jobs, of which all tasks are meant.",
    )
    filter = Filter(
        help_text="As the query parameters of the target's list; {} leaves all of them."
    )
    priority = Integer(
        required=False, min_value=-100, max_value=100, help_text="For prioritise alone."
    )
    dry_run = Boolean(required=False, help_text="Only count. Default: false.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        wants = attrs["action"] == Action.PRIORITISE
        if wants != ("priority" in attrs):
            code = "missing" if wants else "unused"
            fault = serializers.ErrorDetail(str(self.error_messages[code]), code=code)
            raise serializers.ValidationError({"priority": [fault]})
        return attrs


class DryRunSerializer(serializers.Serializer):
    total = serializers.IntegerField(
        help_text=f"Tasks it would change, up to {operations.COUNTED:,}."
    )
    exact = serializers.BooleanField(help_text="False: there are more than that.")


class OperationSerializer(serializers.ModelSerializer):
    state = serializers.ChoiceField(STATES, read_only=True)
    total = serializers.SerializerMethodField(
        help_text=f"Tasks it was for when it was asked for, counted up to {operations.COUNTED:,}."
    )
    exact = serializers.SerializerMethodField(help_text="Whether total is all of them.")

    class Meta:
        model = Operation
        fields = [
            "id",
            "action",
            "target",
            "filter",
            "priority",
            "state",
            "total",
            "exact",
            "done",
            "error",
            "requested_by",
            "created_at",
            "started_at",
            "cancelled_at",
            "ended_at",
        ]
        read_only_fields = fields
        extra_kwargs = {"filter": {"help_text": "As it was asked for."}}

    def get_total(self, operation: Operation) -> int:
        return min(operation.total, operations.COUNTED)

    def get_exact(self, operation: Operation) -> bool:
        return operation.total <= operations.COUNTED


BEGUN = {202: OperationSerializer}
FAILED_OF_QUEUE = OpenApiExample(
    "All that failed in a queue, once more",
    value={"action": "retry", "target": "tasks", "filter": {"status": "failed", "queue": "import"}},
    request_only=True,
)


def begun(operation: Operation) -> Response:
    location = reverse("v1:operation-detail", [operation.pk])
    data = OperationSerializer(operation).data
    return Response(data, status=202, headers={"Location": location})


@extend_schema_view(
    list=extend_schema(summary="List operations, newest first"),
    retrieve=extend_schema(summary="Show an operation"),
)
class OperationViewSet(RetrieveModelMixin, ListModelMixin, ApiViewSet):
    queryset = Operation.objects.all()
    serializer_class = OperationSerializer
    scope = "operate"

    @extend_schema(
        summary="Do something to all that match",
        description="Cancels, retries or prioritises the tasks that match and are there by now, "
        "batch by batch, in the background. With dry_run they are only counted.",
        request=OperationSubmission,
        responses={200: DryRunSerializer, **BEGUN},
        examples=[FAILED_OF_QUEUE],
    )
    def create(self, request: Request) -> Response:
        values = self.checked(OperationSubmission).validated_data
        dry_run = values.pop("dry_run", False)
        operation = Operation(**values, requested_by=access(request).name)
        try:
            if dry_run:
                found = operations.count(operation)
                total = min(found.value, found.cap)
                return Response({"total": total, "exact": not found.capped})
            with transaction.atomic():
                operations.begin(operation)
                detail = operations.detail(operation)
                self.record(operation.action, f"operation {operation.pk}", **detail)
        except operations.BadFilter as refusal:
            raise serializers.ValidationError({"filter": refusal.faults}) from None
        return begun(operation)

    @extend_schema(
        summary="Cancel an operation",
        description="Nothing more of it is done; what was done stays.",
        request=None,
        responses={200: OperationSerializer, **refused(409, "wrong_state: it has ended.")},
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: int) -> Response:
        self.get_object()
        with transaction.atomic():
            operations.cancel(pk)
            self.record("cancel", f"operation {pk}")
        return Response(OperationSerializer(self.get_object()).data)
