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


class ContentSecurityPolicy(MiddlewareMixin):
    """Everything comes from here; data are no page at all. The admin's Alpine evaluates what
    stands in its attributes, and pages style elements inline."""

    data = "default-src 'none'; frame-ancestors 'none'"
    page = (
        "default-src 'none'; script-src 'self'{}; connect-src 'self'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        policy = self.data
        if response.get("Content-Type", "").startswith("text/html"):
            evaluates = request.path.startswith("/admin/")
            policy = self.page.format(" 'unsafe-eval'" if evaluates else "")
        response.headers.setdefault("Content-Security-Policy", policy)
        return response
