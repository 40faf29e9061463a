"""Schedules: made, changed, paused, fired. What they submit is held to the rules of a submit."""

from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.http import Http404
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from dtsproject.openapi import refused
from jobs.api.base import ApiViewSet
from jobs.authentication import access
from jobs.delay import delay
from scheduling import schedules
from scheduling.api.serializers import (
    FiringSerializer,
    ScheduleChange,
    ScheduleDetailSerializer,
    ScheduleSerializer,
    ScheduleSubmission,
)
from scheduling.models import Firing, Schedule

NAME_TAKEN = refused(409, "schedule_exists: there is a schedule of this name.")
WRONG_STATE = refused(409, "wrong_state: it is paused, or not, already.")
NOT_FIRED = {
    **refused(422, "invalid_template or too_many_lanes: its job would be refused as a submit."),
    **refused(429, "overloaded: too much waits; see Retry-After."),
}
NIGHTLY = OpenApiExample(
    "Every night at two, in Berlin",
    value={
        "name": "nightly-backup",
        "cron": "0 2 * * *",
        "time_zone": "Europe/Berlin",
        "template": {"name": "backup {date}", "tasks": [{"payload": {"cmd": "./backup {date}"}}]},
    },
    request_only=True,
)


@extend_schema_view(
    list=extend_schema(summary="List schedules, newest first"),
    retrieve=extend_schema(summary="Show a schedule", responses=ScheduleDetailSerializer),
)
class ScheduleViewSet(RetrieveModelMixin, ListModelMixin, ApiViewSet):
    queryset = Schedule.objects.all()
    serializer_class = ScheduleSerializer
    scope = "submit"

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if self.action == "destroy":
            self.scope = "operate"
        super().initial(request, *args, **kwargs)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.detail_of(self.get_object())

    @extend_schema(
        summary="Make a schedule",
        description="It submits a job at each of its times, as whoever may submit could.",
        request=ScheduleSubmission,
        responses={201: ScheduleDetailSerializer} | NAME_TAKEN,
        examples=[NIGHTLY],
    )
    def create(self, request: Request) -> Response:
        values = self.checked(ScheduleSubmission).validated_data
        with transaction.atomic():
            made = schedules.create(values, created_by=access(request).name)
            self.record("create", f"schedule {made.pk}", name=made.name)
        location = reverse("v1:schedule-detail", [made.pk])
        return self.detail_of(made, status=201, headers={"Location": location})

    @extend_schema(
        summary="Change a schedule",
        request=ScheduleChange,
        responses={200: ScheduleDetailSerializer} | NAME_TAKEN,
    )
    def partial_update(self, request: Request, pk: int) -> Response:
        asked = ScheduleChange(self.get_object(), data=request.data)
        asked.is_valid(raise_exception=True)
        with transaction.atomic():
            changed = schedules.change(pk, asked.validated_data)
            self.record("change", f"schedule {pk}", fields=sorted(asked.validated_data))
        return self.detail_of(changed)

    @extend_schema(summary="Delete a schedule and the list of its firings", responses={204: None})
    def destroy(self, request: Request, pk: int) -> Response:
        with transaction.atomic():
            schedule = self.get_object()
            self.record("delete", f"schedule {pk}", name=schedule.name)
            schedule.delete()
        return Response(status=204)

    @extend_schema(
        summary="Pause a schedule",
        description="Times that pass while it is paused are not made up for.",
        request=None,
        responses={200: ScheduleDetailSerializer} | WRONG_STATE,
    )
    @action(detail=True, methods=["post"], scope="operate")
    def pause(self, request: Request, pk: int) -> Response:
        return self.move("pause", schedules.pause)

    @extend_schema(
        summary="Resume a schedule",
        request=None,
        responses={200: ScheduleDetailSerializer} | WRONG_STATE,
    )
    @action(detail=True, methods=["post"], scope="operate")
    def resume(self, request: Request, pk: int) -> Response:
        return self.move("resume", schedules.resume)

    @extend_schema(
        summary="Submit a schedule's job now",
        description="Paused or not, whatever runs of it. Its times stay as they are.",
        request=None,
        responses={201: FiringSerializer} | NOT_FIRED,
    )
    @action(detail=True, methods=["post"], scope="operate")
    def fire(self, request: Request, pk: int) -> Response:
        self.get_object()
        with delay.limited(1), transaction.atomic():
            firing = schedules.fire(pk)
            self.record("fire", f"schedule {pk}", job=firing.job_id)
        return Response(FiringSerializer(firing).data, status=201)

    @extend_schema(
        summary="List a schedule's firings, newest first", responses=FiringSerializer(many=True)
    )
    @action(detail=True, paged=True)
    def firings(self, request: Request, pk: int) -> Response:
        return self.page(Firing.objects.filter(schedule=self.get_object()), FiringSerializer)

    def move(self, name: str, verb: Callable[[int], Schedule]) -> Response:
        pk = self.get_object().pk
        with transaction.atomic():
            moved = verb(pk)
            self.record(name, f"schedule {pk}", name=moved.name)
        return self.detail_of(moved)

    def handle_exception(self, exc: Exception) -> Response:
        """One that somebody deletes meanwhile is not there."""
        return super().handle_exception(
            Http404() if isinstance(exc, Schedule.DoesNotExist) else exc
        )

    def detail_of(self, schedule: Schedule, **more: Any) -> Response:
        schedule.refresh_from_db()
        return Response(ScheduleDetailSerializer(schedule).data, **more)
