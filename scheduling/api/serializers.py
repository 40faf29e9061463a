"""What a schedule takes and shows. The API, the admin and `manage.py schedule` share it."""

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from django.forms import model_to_dict
from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from dtsproject.errors import Refusal
from jobs.api.fields import NAME_OF_QUEUE, Instant, Integer, Label, StrictSerializer, Text
from jobs.secrets import MASK, masked_job
from scheduling import plan
from scheduling.cron import LONGEST, Cron, zone_of
from scheduling.models import CatchUp, Firing, Outcome, Overlap, Schedule
from scheduling.schedules import TIMING
from scheduling.template import MEANINGS, job_of

MAX_JITTER_SECONDS = 24 * 3600
SHOWN_RUNS = 5
STATES = ["active", "paused", "over"]


def is_cron(text: str) -> None:
    try:
        Cron(text)
    except Refusal as refusal:
        raise serializers.ValidationError(refusal.detail, code=refusal.code) from None


def is_zone(name: str) -> None:
    try:
        zone_of(name)
    except Refusal as refusal:
        raise serializers.ValidationError(refusal.detail, code=refusal.code) from None


class ScheduleChange(StrictSerializer):
    """Those given change; made with the schedule that is changed."""

    name = Label(NAME_OF_QUEUE, max_length=100, required=False)
    cron = Text(
        max_length=LONGEST,
        validators=[is_cron],
        required=False,
        help_text="Five fields, or @daily and kin.",
    )
    time_zone = Text(
        max_length=64,
        validators=[is_zone],
        required=False,
        help_text="IANA name. Default: UTC.",
    )
    template = serializers.DictField(
        required=False,
        help_text="A job as for POST jobs; in its strings these stand for the time it is fired "
        f"for: {', '.join(f'{{{name}}}' for name in MEANINGS)}.",
    )
    overlap = serializers.ChoiceField(
        Overlap.choices, required=False, help_text="While its last job runs. Default: allow."
    )
    catch_up = serializers.ChoiceField(
        CatchUp.choices, required=False, help_text="Of times that were missed. Default: one."
    )
    catch_up_limit = Integer(
        min_value=1, max_value=1_000, required=False, help_text="At most so many. Default: 100."
    )
    starts_at = Instant(required=False, allow_null=True)
    ends_at = Instant(required=False, allow_null=True)
    jitter_seconds = Integer(
        min_value=0,
        max_value=MAX_JITTER_SECONDS,
        required=False,
        help_text="Fires up to so much later, by schedule and time. Default: 0.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        schedule = Schedule(**attrs)
        if isinstance(self.instance, Schedule):
            schedule = Schedule(**model_to_dict(self.instance, exclude=["id"]) | attrs)
        if schedule.starts_at and schedule.ends_at and schedule.ends_at <= schedule.starts_at:
            fault = "It ends before it starts."
            raise serializers.ValidationError({"ends_at": [fault]}, code="invalid")
        first = self._first_time(schedule, attrs)
        try:
            job_of(schedule.template, schedule.name, first, schedule.time_zone)
        except serializers.ValidationError as error:
            raise serializers.ValidationError({"template": error.detail}) from None
        return attrs

    def _first_time(self, schedule: Schedule, given: Mapping[str, Any]) -> datetime:
        """For which its template is tried. Raises ValidationError if none comes."""
        found = next(plan.moments(schedule, timezone.now()), None)
        if found:
            return found.scheduled_at
        if isinstance(self.instance, Schedule) and not TIMING & given.keys():
            return timezone.now()  # it is over
        field = "ends_at" if schedule.ends_at else "cron"
        fault = "No such time comes before it ends." if schedule.ends_at else "No such time comes."
        raise serializers.ValidationError({field: [fault]}, code="invalid")


class ScheduleSubmission(ScheduleChange):
    name = Label(NAME_OF_QUEUE, max_length=100)
    cron = Text(max_length=LONGEST, validators=[is_cron], help_text="Five fields, or @daily ...")
    template = serializers.DictField(help_text=ScheduleChange().fields["template"].help_text)


@extend_schema_field({"type": "object", "additionalProperties": {}})
class ShownTemplate(serializers.ReadOnlyField):
    def to_representation(self, value: Any) -> Any:
        return masked_job(value)


class ScheduleSerializer(serializers.ModelSerializer):
    template = ShownTemplate(help_text=f"Each secret value of its tasks is {MASK} here.")
    state = serializers.ChoiceField(STATES, read_only=True)

    class Meta:
        model = Schedule
        fields = [
            "id",
            "name",
            "cron",
            "time_zone",
            "template",
            "overlap",
            "catch_up",
            "catch_up_limit",
            "starts_at",
            "ends_at",
            "jitter_seconds",
            "state",
            "paused_at",
            "paused_reason",
            "next_run_at",
            "last_run_at",
            "last_job_id",
            "created_by",
            "created_at",
            "updated_at",
        ]
        read_only_fields = fields


class ScheduleDetailSerializer(ScheduleSerializer):
    words = serializers.SerializerMethodField(help_text="Its cron expression in words.")
    next_runs = serializers.SerializerMethodField(help_text="The next five times.")

    class Meta(ScheduleSerializer.Meta):
        fields = [*ScheduleSerializer.Meta.fields, "words", "next_runs"]
        read_only_fields = fields

    def get_words(self, schedule: Schedule) -> str:
        return words(schedule)

    def get_next_runs(self, schedule: Schedule) -> list[datetime]:
        return next_runs(schedule)


class FiringSerializer(serializers.ModelSerializer):
    outcome = serializers.ChoiceField(Outcome.choices, read_only=True)

    class Meta:
        model = Firing
        fields = ["id", "schedule_id", "scheduled_at", "outcome", "job_id", "fired_at"]
        read_only_fields = fields


def words(schedule: Schedule) -> str:
    """When it fires, in words; empty where its cron expression is no longer valid."""
    try:
        return Cron(schedule.cron).explain()
    except Refusal:
        return ""


def next_runs(schedule: Schedule) -> list[datetime]:
    """The next SHOWN_RUNS times in its time zone, none while it is paused."""
    if schedule.next_run_at is None:
        return []
    try:
        zone = zone_of(schedule.time_zone)
        found = plan.moments(schedule, schedule.next_run_at - plan.INSTANT)
        return [moment.at.astimezone(zone) for moment in islice(found, SHOWN_RUNS)]
    except Refusal:
        return []
