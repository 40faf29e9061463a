"""What only the scheduler's own knowledge answers: why a task waits, and how all of it goes."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from dtsproject.bounded import CAP, Count
from jobs.api.base import ApiViewSet
from jobs.models import Task
from jobs.states import Status
from scheduling.explain import why
from scheduling.figures import Figures, figures
from scheduling.lanes import Queueing

UP_TO = f"Counted up to {CAP:,}."


class WhySerializer(serializers.Serializer):
    status = serializers.ChoiceField(Status.choices)
    reason = serializers.CharField(help_text="In a sentence; empty unless it waits.")


class LaneSerializer(serializers.Serializer):
    queue = serializers.CharField()
    requires = serializers.ListField(child=serializers.CharField())
    waiting = serializers.IntegerField(help_text=UP_TO)
    task_slots = serializers.IntegerField(help_text="That each of its tasks takes.")
    slots = serializers.IntegerField(
        help_text="How many of its tasks the live workers that serve it run at a time."
    )
    paused = serializers.BooleanField(help_text="Its queue is.")
    stuck = serializers.BooleanField(help_text="Work waits, slots are free, none is promoted.")


class StatsSerializer(serializers.Serializer):
    pending = serializers.IntegerField(help_text=UP_TO)
    queued = serializers.IntegerField(help_text=UP_TO)
    in_progress = serializers.IntegerField(help_text=UP_TO)
    done_per_minute = serializers.FloatField(help_text="Over the last five minutes.")
    failed_in_an_hour = serializers.IntegerField(help_text="Among the 1,000 newest failures.")
    oldest_waiting_at = serializers.DateTimeField(allow_null=True)
    live_workers = serializers.IntegerField()
    stuck = serializers.BooleanField(help_text="No scheduler does its work.")
    lanes = LaneSerializer(many=True, help_text="Those in which tasks wait.")


class WhyViewSet(ApiViewSet):
    queryset = Task.objects.select_related("lane", "job")
    serializer_class = WhySerializer

    @extend_schema(operation_id="tasks_why_retrieve", summary="Say why a task waits")
    def retrieve(self, request: Request, pk: int) -> Response:
        task = self.get_object()
        return Response({"status": task.status, "reason": why(task)})


class StatsViewSet(ApiViewSet):
    queryset = Task.objects.none()
    serializer_class = StatsSerializer

    @extend_schema(summary="Show how much waits and runs, and where")
    def retrieve(self, request: Request) -> Response:
        """At most a second old."""
        return Response(StatsSerializer(stats(figures())).data)


def stats(found: Figures) -> dict[str, Any]:
    return {
        "pending": capped(found.pending),
        "queued": capped(found.queued),
        "in_progress": capped(found.running),
        "done_per_minute": round(found.done_per_minute, 2),
        "failed_in_an_hour": capped(found.failed_in_an_hour),
        "oldest_waiting_at": found.oldest_waiting_at,
        "live_workers": len(found.live_workers),
        "stuck": found.stuck,
        "lanes": [lane(entry) for entry in found.lanes],
    }


def lane(entry: Queueing) -> dict[str, Any]:
    return {
        "queue": entry.lane.queue,
        "requires": entry.lane.requires,
        "waiting": capped(entry.waiting),
        "task_slots": entry.lane.slots,
        "slots": entry.slots,
        "paused": entry.paused,
        "stuck": entry.stuck,
    }


def capped(count: Count) -> int:
    return min(count.value, count.cap)
