"""The workers' door in JSON."""

import base64
import binascii
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from jobs.api.fields import (
    NAME_OF_QUEUE,
    Boolean,
    Integer,
    Label,
    Number,
    StrictSerializer,
    Text,
)
from jobs.specs import Ending, LogPart
from jobs.states import Kind, Outcome
from workers.models import State, Worker
from workers.registry import Registration

BIGINT = 2**63 - 1
MAX_REPORT = 10_000


class UUIDText(serializers.UUIDField):
    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class WorkerRegistration(StrictSerializer):
    name = Label(max_length=100)
    boot_id = UUIDText(help_text="New at each start; secret, it authorises the calls below.")
    machine_id = Text(max_length=64)
    slots = Integer(min_value=1, max_value=10_000)
    capabilities = serializers.ListField(
        child=Label(),
        required=False,
        max_length=200,
        help_text="Labels; mem_mb=16000 serves what requires mem_mb>=8192 and less.",
    )
    queues = serializers.ListField(
        child=Label(NAME_OF_QUEUE, max_length=40),
        required=False,
        max_length=200,
        help_text="Empty: all.",
    )
    version = Text(required=False, allow_blank=True, max_length=40)
    host = Text(required=False, allow_blank=True, max_length=255)
    pid = Integer(required=False, allow_null=True, min_value=0, max_value=2**31 - 1)
    former_boot_dead = Boolean(
        required=False, help_text="No process of the former boot lives on this machine."
    )

    def to_registration(self) -> Registration:
        return Registration(**self.validated_data)


class Boot(StrictSerializer):
    boot_id = UUIDText()


class Claim(Boot):
    limit = Integer(min_value=1, max_value=1000, help_text="Free slots to claim tasks for.")


class HeldTask(StrictSerializer):
    task_id = Integer(min_value=1, max_value=BIGINT)
    fencing_token = Integer(min_value=1, max_value=BIGINT)


class Heartbeat(Boot):
    held = HeldTask(many=True, max_length=100_000)  # type: ignore[call-arg]
    draining = Boolean(required=False, help_text="It leaves once what it holds has ended.")
    wait_seconds = Number(
        required=False,
        min_value=0,
        max_value=3600,
        help_text="Of a worker that holds nothing: the answer may wait so long, up to 25 seconds, "
        "until there may be work for it.",
    )


class EndingReport(HeldTask):
    outcome = serializers.ChoiceField(Outcome.choices)
    exit_code = Integer(required=False, allow_null=True, min_value=-(2**31), max_value=2**31 - 1)
    signal = Integer(required=False, allow_null=True, min_value=0, max_value=127)
    cpu_seconds = Number(required=False, allow_null=True, min_value=0)
    peak_memory_bytes = Integer(required=False, allow_null=True, min_value=0, max_value=BIGINT)
    error = Text(required=False, allow_blank=True)
    result = Text(required=False, allow_blank=True)
    output = Text(required=False, allow_blank=True)


class Endings(Boot):
    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """A task cannot have ended twice; the answer names results by task."""
        endings = attrs.get("endings", [])
        if len({ending["task_id"] for ending in endings}) < len(endings):
            fault = serializers.ErrorDetail("Name each task once.", code="duplicate")
            raise serializers.ValidationError({"endings": [fault]})
        return attrs

    def to_endings(self) -> list[Ending]:
        return [Ending(**ending) for ending in self.validated_data.get("endings", [])]


class Report(Endings):
    endings = EndingReport(many=True, allow_empty=False, max_length=MAX_REPORT)  # type: ignore[call-arg]


class Exchange(Endings):
    endings = EndingReport(many=True, max_length=MAX_REPORT)  # type: ignore[call-arg]
    limit = Integer(
        min_value=0, max_value=2000, help_text="Free slots to claim tasks for; 0: only report."
    )


@extend_schema_field(
    {
        "type": "string",
        "contentEncoding": "base64",
        "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    }
)
class Base64(Text):
    def to_internal_value(self, data: Any) -> Any:
        try:
            return base64.b64decode(super().to_internal_value(data), validate=True)
        except (binascii.Error, ValueError):
            raise serializers.ValidationError("This is not base64.", code="invalid") from None


class LogPartReport(HeldTask):
    stream = serializers.ChoiceField(["stdout", "stderr"])
    start = Integer(min_value=0, max_value=BIGINT, help_text="Byte offset in the stream.")
    data = Base64()  # type: ignore[assignment]


class LogParts(Boot):
    parts = LogPartReport(many=True, allow_empty=False, max_length=MAX_REPORT)  # type: ignore[call-arg]

    def to_parts(self) -> list[LogPart]:
        return [LogPart(**part) for part in self.validated_data["parts"]]


class Delivery(Endings):
    name = Label(max_length=100)
    endings = EndingReport(many=True, required=False, max_length=MAX_REPORT)  # type: ignore[call-arg]
    parts = LogPartReport(many=True, required=False, max_length=MAX_REPORT)  # type: ignore[call-arg]

    def to_parts(self) -> list[LogPart]:
        return [LogPart(**part) for part in self.validated_data.get("parts", [])]


class WorkerSerializer(serializers.ModelSerializer):
    capabilities = serializers.ListField(
        source="offers", child=serializers.CharField(), read_only=True
    )
    running = serializers.IntegerField(read_only=True, help_text="Leases it holds.")

    class Meta:
        model = Worker
        fields = [
            "id",
            "name",
            "state",
            "last_heartbeat",
            "capabilities",
            "queues",
            "slots",
            "running",
            "version",
            "host",
            "pid",
            "started_at",
        ]
        read_only_fields = fields


class Terms(serializers.Serializer):
    """What a worker must keep to; lengths in seconds."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    state = serializers.ChoiceField(State.choices)
    lease_seconds = serializers.FloatField()
    heartbeat_seconds = serializers.FloatField()
    kill_grace_seconds = serializers.FloatField()


class ClaimedTask(serializers.Serializer):
    task_id = serializers.IntegerField()
    job_id = serializers.IntegerField()
    name = serializers.CharField()
    kind = serializers.ChoiceField(Kind.choices)
    payload = serializers.DictField()
    attempt = serializers.IntegerField()
    fencing_token = serializers.IntegerField()
    timeout_seconds = serializers.FloatField(allow_null=True)
    claimed_at = serializers.DateTimeField()
    slots = serializers.IntegerField(help_text="That it takes of the worker's.")


class ClaimAnswer(serializers.Serializer):
    tasks = ClaimedTask(many=True)


class BeatAnswer(serializers.Serializer):
    state = serializers.ChoiceField(State.choices)
    lost = serializers.ListField(
        child=serializers.IntegerField(), help_text="Tasks no longer the worker's."
    )
    cancelled = serializers.ListField(
        child=serializers.IntegerField(), help_text="Tasks to end, and report as cancelled."
    )
    ready = serializers.BooleanField(
        allow_null=True,
        help_text="Whether there may be work to claim, if the answer waited for it; else null.",
    )


class Verdict(serializers.Serializer):
    task_id = serializers.IntegerField()
    fencing_token = serializers.IntegerField()
    accepted = serializers.BooleanField(help_text="False: the lease was lost, nothing changed.")
    status = serializers.CharField(allow_null=True, help_text="What the task was moved to.")


class ReportAnswer(serializers.Serializer):
    results = Verdict(many=True)


class ExchangeAnswer(ReportAnswer):
    tasks = ClaimedTask(many=True)


class LogAnswer(serializers.Serializer):
    stored = serializers.IntegerField(help_text="Parts that were new and of held leases.")
