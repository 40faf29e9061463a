"""Limits of concurrency keys: looked at, set and removed, by key."""

import re
from typing import Any

from django.db import transaction
from django.http import Http404
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    extend_schema,
    extend_schema_view,
)
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from dtsproject.errors import Refusal
from dtsproject.openapi import refused
from jobs import queue
from jobs.api.base import ApiViewSet
from jobs.api.fields import Integer, Seconds, StrictSerializer
from jobs.api.serializers import LimitSerializer
from jobs.models import Limit
from jobs.models.limit import MOST_RATE_SECONDS

# A concurrency key, the beginning of some and a star, or a star for all.
LIMIT_KEY = r"[A-Za-z0-9][A-Za-z0-9._:=/-]{0,99}\*?|\*"
MAX_QUEUE_NAME = 40
MOST_RUNNING = 1_000_000
KEY = OpenApiParameter("key", str, OpenApiParameter.PATH, pattern=f"^({LIMIT_KEY})$")
BAD_KEY_DETAIL = (
    "A key has up to 100 letters, digits and . _ : = / - in it, a letter or digit first; then * "
    "for each key that begins so. A * alone is for all."
)
BAD_KEY = refused(422, "invalid_key: no concurrency key is like this.")
BACKUPS = OpenApiExample("Three at once", value={"max_running": 3}, request_only=True)
MAILS = OpenApiExample(
    "Ten a minute", value={"rate_count": 10, "rate_seconds": 60}, request_only=True
)


def is_limit_key(text: str) -> bool:
    return bool(re.fullmatch(LIMIT_KEY, text))


class BadKey(Refusal):
    status, code, title = 422, "invalid_key", "No concurrency key is like this"


class Bound(Integer):
    """How many at once: never is not one of them."""

    default_error_messages = {
        "min_value": "Give 1 or more: to hold a queue, pause it; to hold a job, pause that."
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(min_value=1, max_value=MOST_RUNNING, **options)


class QueueChange(StrictSerializer):
    max_running = Bound(
        allow_null=True, help_text="Of its tasks, queued or running at once; null: any number."
    )


class LimitSubmission(StrictSerializer):
    default_error_messages = {
        "nothing": "Give max_running, or rate_count and rate_seconds, or all three.",
        "half": "rate_count and rate_seconds go together: ten a minute are 10 and 60.",
    }

    max_running = Bound(
        required=False,
        allow_null=True,
        help_text="How many of the key's tasks are queued or running at once, at most.",
    )
    rate_count = Bound(
        required=False,
        allow_null=True,
        help_text="So many in rate_seconds may be queued, evenly, and as many at once after a "
        "time without any.",
    )
    rate_seconds = Seconds(required=False, allow_null=True, max_value=MOST_RATE_SECONDS)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        rate = [attrs.get("rate_count"), attrs.get("rate_seconds")]
        if rate.count(None) == 1:
            self.fail("half")
        if rate.count(None) == 2 and attrs.get("max_running") is None:
            self.fail("nothing")
        return attrs


@extend_schema_view(
    list=extend_schema(summary="List limits, newest first"),
    retrieve=extend_schema(summary="Show the limit of a key"),
)
class LimitViewSet(RetrieveModelMixin, ListModelMixin, ApiViewSet):
    http_method_names = ["get", "head", "put", "delete"]
    queryset = Limit.objects.all()
    serializer_class = LimitSerializer
    scope = "operate"
    lookup_field = "key"
    lookup_value_converter = "path"

    @extend_schema(
        summary="Limit a concurrency key",
        description="Holds for what is queued from then on; what runs goes on, and counts. A key "
        "that ends in * gives each key that begins so a limit of its own of this size. A key's own "
        "limit goes first, then that of the longest beginning.",
        parameters=[KEY],
        request=LimitSubmission,
        responses={200: LimitSerializer, 201: LimitSerializer} | BAD_KEY,
        examples=[BACKUPS, MAILS],
    )
    def update(self, request: Request, key: str) -> Response:
        if not is_limit_key(key):
            raise BadKey(BAD_KEY_DETAIL)
        values = self.checked(LimitSubmission).validated_data
        with transaction.atomic():
            limit, made = queue.limit_key(key, values)
            self.record("limit", f"limit {limit.pk}", key=key, **values)
        limit.refresh_from_db()
        return Response(LimitSerializer(limit).data, status=201 if made else 200)

    @extend_schema(
        summary="Remove a limit",
        description="What it held back may go at once.",
        responses={204: None},
    )
    def destroy(self, request: Request, key: str) -> Response:
        with transaction.atomic():
            limit = self.get_object()
            queue.unlimit_key(key)
            self.record("unlimit", f"limit {limit.pk}", key=key)
        return Response(status=204)

    def get_object(self) -> Limit:
        if not is_limit_key(self.kwargs["key"]):
            raise Http404
        return super().get_object()
