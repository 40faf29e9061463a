"""The clients' door to tasks: look, read the log, cancel, retry."""

from typing import Any

from django.db import transaction
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings

from dtsproject.errors import InvalidQuery
from dtsproject.openapi import refused
from jobs import queue
from jobs.api import ranges
from jobs.api.base import WRONG_STATE, ApiViewSet
from jobs.api.filters import TaskFilter
from jobs.api.log import log_bytes, log_part
from jobs.api.serializers import (
    AttemptSerializer,
    LogQuery,
    LogSerializer,
    TaskDetailSerializer,
    TaskSerializer,
)
from jobs.api.submissions import NewPriority
from jobs.models import Attempt, Task


@extend_schema_view(
    list=extend_schema(summary="List tasks, newest first"),
    retrieve=extend_schema(summary="Show a task", responses=TaskDetailSerializer),
)
class TaskViewSet(RetrieveModelMixin, ListModelMixin, ApiViewSet):
    queryset = Task.objects.all()
    serializer_class = TaskSerializer
    filterset_class = TaskFilter
    scope = "operate"

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response(TaskDetailSerializer(self.get_object()).data)

    @extend_schema(summary="List a task's ended attempts", responses=AttemptSerializer(many=True))
    @action(detail=True, paged=True, filterset_class=None)
    def attempts(self, request: Request, pk: int) -> Response:
        return self.page(Attempt.objects.filter(task=self.get_object()), AttemptSerializer)

    @extend_schema(
        summary="Read what a task printed",
        description="In JSON from byte `after` on; asked for as application/octet-stream, all that "
        "is kept of it, or the part that Range names.",
        parameters=[LogQuery],
        responses={
            (200, "application/json"): LogSerializer,
            (200, ranges.MEDIA_TYPE): OpenApiTypes.BINARY,
            (206, ranges.MEDIA_TYPE): OpenApiTypes.BINARY,
            **refused(416, "range_not_satisfiable: nothing is in this range."),
        },
    )
    @action(
        detail=True,
        query_parameters=tuple(LogQuery().fields),
        renderer_classes=[*api_settings.DEFAULT_RENDERER_CLASSES, ranges.AsBytes],
    )
    def log(self, request: Request, pk: int) -> HttpResponse:
        query, task = LogQuery.of(request.query_params), self.get_object()
        if not isinstance(request.accepted_renderer, ranges.AsBytes):
            return Response(log_part(task, **query))
        if "after" in query:
            raise InvalidQuery({"after": "of bytes, Range names a part"})
        data, ended = log_bytes(task, **query)
        return ranges.partial(request._request, data, ended=ended)

    @extend_schema(
        summary="Cancel a task",
        description="One that runs stays in_progress until its worker has ended it.",
        request=None,
        responses={200: TaskSerializer} | WRONG_STATE,
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: int) -> Response:
        task = self.get_object()
        with transaction.atomic():
            if not queue.cancel([task.pk]):
                self.refuse("only a task that has not ended can be cancelled")
            self.record("cancel", f"task {task.pk}")
        return Response(TaskSerializer(self.get_object()).data)

    @extend_schema(
        summary="Change the priority of a task that has not started",
        request=NewPriority,
        responses={200: TaskSerializer} | WRONG_STATE,
    )
    @action(detail=True, methods=["post"], scope="operate", takes_body=True)
    def prioritise(self, request: Request, pk: int) -> Response:
        priority = self.checked(NewPriority).validated_data["priority"]
        task = self.get_object()
        with transaction.atomic():
            if not queue.prioritise([task.pk], priority):
                self.refuse("only a task that has not started can change its priority")
            self.record("prioritise", f"task {task.pk}", priority=priority)
        return Response(TaskSerializer(self.get_object()).data)

    @extend_schema(
        summary="Retry a failed or cancelled task",
        description="Opens a new generation of it, with fresh retries. With it come back the tasks "
        "that were cancelled because it had failed; one of those comes back with it only.",
        request=None,
        responses={200: TaskSerializer} | WRONG_STATE,
    )
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: int) -> Response:
        task = self.get_object()
        with transaction.atomic():
            if not queue.retry([task.pk]):
                self.refuse(
                    "only a failed or cancelled task can be retried, and none before one that it "
                    "depends on and that failed"
                )
            self.record("retry", f"task {task.pk}")
        return Response(TaskSerializer(self.get_object()).data)

    def refuse(self, why: str) -> None:
        task = self.get_object()
        raise queue.WrongState(f"Task {task.pk} is {task.status}: {why}.", state=task.status)
