"""How the admin writes times, durations, states and bars. Values in, HTML or text out."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def duration(value: timedelta | float | None) -> str:
    """`40 ms`, `1.5 s`, `3 min 5 s`, `2 d 4 h`: the two largest units of seconds or a timedelta."""
    if value is None:
        return "-"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{max(seconds, 0) * 1000:.0f} ms"
    parts: list[str] = []
    left = round(seconds)
    for size, name in UNITS:
        amount, left = divmod(left, size)
        if amount or parts:
            parts.append(f"{amount} {name}" if amount else "")
    return " ".join(part for part in parts[:2] if part)


def ago(at: datetime | None) -> str | SafeString:
    """`3 min ago` or `in 2 h`, the absolute time in its title."""
    if at is None:
        return "-"
    seconds = (timezone.now() - at).total_seconds()
    largest = " ".join(duration(abs(seconds)).split()[:2]) if abs(seconds) >= 10 else ""
    text = "now" if not largest else f"{largest} ago" if seconds > 0 else f"in {largest}"
    return format_html(
        '<time class="dts-time" datetime="{}" title="{}">{}</time>', at.isoformat(), stamp(at), text
    )


def age(at: datetime | None) -> str:
    """How long ago that was, as a duration."""
    return duration(timezone.now() - at) if at else "-"


def stamp(at: datetime | None) -> str:
    """`2026-11-23 17:20:10.123 UTC`, in the time zone of the request."""
    if at is None:
        return "-"
    local = timezone.localtime(at)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03} {local:%Z}"


def size(count: int | None) -> str:
    """Bytes as `512 B`, `1.5 KiB`, `20 MiB`."""
    if count is None:
        return "-"
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f} {unit}" if unit != "B" and amount < 10 else f"{amount:.0f} {unit}"


def words(state: str) -> str:
    return state.replace("_", " ")


def badge(state: str) -> SafeString:
    """The state's name in its colour."""
    return format_html('<span class="dts-badge dts-{}">{}</span>', state, words(state))


def bar(parts: Iterable[tuple[str, Any]]) -> SafeString:
    """A bar with a stretch for each (state, count) above nothing, counts in its title."""
    parts = [(state, count) for state, count in parts if count]
    title = ", ".join(f"{count} {words(state)}" for state, count in parts) or "nothing"
    stretches = format_html_join(
        "",
        '<i class="dts-{}" style="flex-grow:{}"></i>',
        ((state, getattr(count, "value", count)) for state, count in parts),
    )
    return format_html(
        '<span class="dts-bar" role="img" aria-label="{0}" title="{0}">{1}</span>', title, stretches
    )


def link(url: str, text: Any) -> SafeString:
    return format_html('<a class="dts-link" href="{}">{}</a>', url, text)
