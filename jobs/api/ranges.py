"""A log as the bytes it is, whole or in part (RFC 9110, section 14): `Range: bytes=0-999`."""

import re
from typing import Any

from django.http import HttpRequest, HttpResponse
from rest_framework.renderers import BaseRenderer

from dtsproject import problems

MEDIA_TYPE = "application/octet-stream"
RANGE = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")


class AsBytes(BaseRenderer):
    """For negotiation alone: what is asked for so is answered by `partial`."""

    media_type, format, charset, render_style = MEDIA_TYPE, "bytes", None, "binary"

    def render(self, data: Any, *args: Any) -> bytes:
        return bytes(data)


def partial(request: HttpRequest, data: bytes, *, ended: bool) -> HttpResponse:
    """The part of `data` that the request wants, or all of it where it names none.

    Unless it has `ended`, the whole length is unknown. A range of another form is ignored, as the
    RFC has it, and so is one with a condition, since there is no validator to hold it against.
    """
    length = len(data)
    wanted = RANGE.fullmatch(request.headers.get("Range", "").strip())
    first, last = wanted.groups() if wanted else (None, None)
    if not _is_range(first, last) or "If-Range" in request.headers:
        response = HttpResponse(data, content_type=MEDIA_TYPE)
    else:
        start, end = _ends(first, last, length)
        total = str(length) if ended else "*"
        if start > end:
            return _unsatisfiable(request, length, total)
        response = HttpResponse(data[start : end + 1], status=206, content_type=MEDIA_TYPE)
        response["Content-Range"] = f"bytes {start}-{end}/{total}"
    response["Accept-Ranges"] = "bytes"
    return response


def _is_range(first: str | None, last: str | None) -> bool:
    if first is None or last is None:
        return first != last
    return int(first) <= int(last)


def _ends(first: str | None, last: str | None, length: int) -> tuple[int, int]:
    """The first and last byte; the former is larger where there are none."""
    if first is None:
        return max(0, length - int(last or 0)), length - 1
    return int(first), length - 1 if last is None else min(int(last), length - 1)


def _unsatisfiable(request: HttpRequest, length: int, total: str) -> HttpResponse:
    detail = f"There are {length} bytes{' so far' if total == '*' else ''}, and none in this range."
    response = problems.problem(request, 416, detail)
    response["Content-Range"] = f"bytes */{length}"
    return response
