"""Every error of the API as a problem document (RFC 9457), whichever layer it comes from."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import Resolver404, resolve
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.views import set_rollback

from dtsproject.errors import Refusal

MEDIA_TYPE = "application/problem+json"
API_PATHS = ("/api", "/healthz", "/readyz", "/metrics")
RETRY_AFTER_SECONDS = 2
MAX_ERRORS = 100
CODES = {
    400: "bad_request",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    429: "throttled",
    500: "internal_error",
    503: "unavailable",
}


def problem(
    request: HttpRequest, status: int, detail: str, *, code: str = "", title: str = "", **more: Any
) -> JsonResponse:
    """A response with the problem document: `more` are its extension members."""
    code = code or CODES[status]
    document = {
        "type": f"urn:dts:problem:{code}",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.path,
        "code": code,
        "request_id": getattr(request, "request_id", ""),
        **more,
    }
    return JsonResponse(document, status=status, content_type=MEDIA_TYPE)


def exception_handler(error: Exception, context: Mapping[str, Any]) -> HttpResponse | None:
    """Django REST framework's hook; None lets the error rise to `server_error`."""
    response = from_exception(context["request"]._request, error)
    if response is not None:
        set_rollback()
    return response


def from_exception(request: HttpRequest, error: BaseException | None) -> HttpResponse | None:
    """The problem that an exception amounts to; None for one that only a bug explains."""
    match error:
        case Refusal():
            return _refused(request, error)
        case exceptions.ValidationError():
            return _invalid(request, error)
        case exceptions.APIException():
            return _from_rest_framework(request, error)
        case RequestDataTooBig():
            return problem(request, 413, "The body is too large; send it in several parts.")
        case Http404():
            return problem(request, 404, "There is nothing with this id.")
        case PermissionDenied():
            return problem(request, 403, str(error) or "You may not do this.")
        case OperationalError() | InterfaceError():
            return unavailable(request, "The database does not answer; try again in a moment.")
    return None


def _refused(request: HttpRequest, error: Refusal) -> HttpResponse:
    response = problem(
        request,
        error.status,
        error.detail,
        code=error.code,
        title=error.title,
        **error.members,
    )
    if error.retry_after_seconds is not None:
        response["Retry-After"] = str(error.retry_after_seconds)
    return response


def unavailable(request: HttpRequest, detail: str) -> HttpResponse:
    response = problem(request, 503, detail)
    response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _from_rest_framework(request: HttpRequest, error: exceptions.APIException) -> HttpResponse:
    code = error.get_codes()
    status = error.status_code
    if not isinstance(code, str) or status not in (400, 401, 403):
        code = CODES.get(status, "refused")
    response = problem(request, status, str(error.detail), code=code)
    if challenge := getattr(error, "auth_header", None):
        response["WWW-Authenticate"] = challenge
    if isinstance(error, exceptions.Throttled):
        response["Retry-After"] = str(max(1, math.ceil(getattr(error, "wait", None) or 0)))
    return response


def _invalid(request: HttpRequest, error: exceptions.ValidationError) -> HttpResponse:
    errors = list(faults(error.detail, "#"))
    first = errors[0]
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    return problem(
        request,
        400,
        f"{first['pointer']}: {first['detail']}{more}",
        code="invalid",
        title="The body is not valid",
        errors=errors[:MAX_ERRORS],
    )


def faults(detail: Any, pointer: str) -> Iterator[dict[str, str]]:
    """The leaves of a ValidationError's detail, each with its JSON pointer (RFC 6901)."""
    if isinstance(detail, Mapping):
        for key, inner in detail.items():
            if key == "non_field_errors":
                yield from faults(inner, pointer)
            else:
                yield from faults(inner, f"{pointer}/{escape(key)}")
    elif isinstance(detail, Sequence) and not isinstance(detail, str):
        for inner in detail:
            yield from faults(inner, pointer)
    else:
        yield {"pointer": pointer, "code": detail.code, "detail": str(detail)}


def escape(key: object) -> str:
    """A key as a JSON pointer's reference token."""
    return str(key).replace("~", "~0").replace("/", "~1")


# -- Django's own error views: problems under the API's paths, its pages elsewhere --------------


def is_api(request: HttpRequest) -> bool:
    return any(request.path == path or request.path.startswith(f"{path}/") for path in API_PATHS)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_api(request):
        return from_exception(request, exception) or problem(
            request, 400, "The request cannot be understood; see its Host header and URL."
        )
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_api(request):
        return problem(request, 403, "You may not do this.")
    return defaults.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_api(request):
        return no_such_route(request)
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    known = from_exception(request, sys.exc_info()[1])
    if is_api(request):
        return known or problem(
            request, 500, "This is a fault of DTS; its log has more under this request_id."
        )
    # A database that is away is no fault of a page either.
    return known if known and known.status_code == 503 else defaults.server_error(request)


def safe(view: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A view that is only looked at."""

    @csrf_exempt
    @wraps(view)
    def answer(request: HttpRequest) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            return view(request)
        response = problem(request, 405, f'Method "{request.method}" not allowed.')
        response["Allow"] = "GET, HEAD"
        return response

    return answer


@csrf_exempt
def no_such_route(request: HttpRequest, *args: str) -> HttpResponse:
    """What every path under /api that has no route answers."""
    detail = f"There is no {request.path}; /docs lists what there is."
    without_slash = request.path.rstrip("/")
    try:
        if without_slash != request.path and resolve(without_slash).func is not no_such_route:
            detail = f"Use {without_slash}, without a slash at the end."
    except Resolver404:
        pass
    return problem(request, 404, detail, code="no_such_route")
