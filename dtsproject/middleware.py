import re
import uuid

import structlog
from django.http import HttpRequest, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestId(MiddlewareMixin):
    """Gives each request an id, or keeps the proxy's: in every log line, problem and answer."""

    def process_request(self, request: HttpRequest) -> None:
        given = request.headers.get("X-Request-ID", "")
        request_id = given if GIVEN.fullmatch(given) else uuid.uuid4().hex
        request.request_id = request_id  # type: ignore[attr-defined]
        # Threads are used again: nothing of their last request may stay bound.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        response["X-Request-ID"] = request.request_id  # type: ignore[attr-defined]
        return response
