"""Queues: looked at, limited, paused and resumed, by name."""

import re
from collections.abc import Callable

from django.db import transaction
from django.http import Http404
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from dtsproject.openapi import refused
from jobs import queue
from jobs.api.base import ApiViewSet
from jobs.api.fields import NAME_OF_QUEUE
from jobs.api.limits import MAX_QUEUE_NAME, QueueChange
from jobs.api.serializers import QueueSerializer
from jobs.models import Queue

ALREADY = refused(409, "wrong_state: it is paused, or not, already.")


@extend_schema_view(
    list=extend_schema(summary="List queues, newest first"),
    retrieve=extend_schema(summary="Show a queue"),
)
class QueueViewSet(RetrieveModelMixin, ListModelMixin, ApiViewSet):
    queryset = Queue.objects.all()
    serializer_class = QueueSerializer
    scope = "operate"
    lookup_field = "name"
    lookup_value_converter = "str"

    @extend_schema(
        summary="Limit a queue, or let it have any number again (null)",
        description="At most so many of its tasks are queued or running at once. What runs goes "
        "on. A queue that nothing was submitted to yet is made.",
        request=QueueChange,
        responses={200: QueueSerializer},
    )
    def partial_update(self, request: Request, name: str) -> Response:
        self.check_name()
        asked = self.checked(QueueChange).validated_data
        with transaction.atomic():
            changed = queue.limit_queue(name, **asked)
            self.record("limit", f"queue {changed.pk}", name=name, **asked)
        return Response(QueueSerializer(changed).data)

    @extend_schema(
        summary="Pause a queue",
        description="Nothing of it starts until it is resumed; what runs goes on.",
        request=None,
        responses={200: QueueSerializer} | ALREADY,
    )
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, name: str) -> Response:
        return self.hold("pause", queue.pause)

    @extend_schema(
        summary="Resume a queue", request=None, responses={200: QueueSerializer} | ALREADY
    )
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, name: str) -> Response:
        return self.hold("resume", queue.resume)

    def get_object(self) -> Queue:
        self.check_name()
        return super().get_object()

    def check_name(self) -> None:
        name = self.kwargs["name"]
        if len(name) > MAX_QUEUE_NAME or not re.fullmatch(NAME_OF_QUEUE, name):
            raise Http404

    def hold(self, name: str, verb: Callable[[str], bool]) -> Response:
        found = self.get_object()
        with transaction.atomic():
            if not verb(found.name):
                state = "paused" if found.paused_at else "running"
                raise queue.WrongState(f"Queue {found.name} is {state} already.", state=state)
            self.record(name, f"queue {found.pk}", name=found.name)
        return Response(QueueSerializer(self.get_object()).data)
