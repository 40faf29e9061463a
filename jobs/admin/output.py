"""What an attempt printed, as its page shows it: the end of each stream."""

from dataclasses import dataclass

from django.db.models import F, Func, IntegerField, Max

from jobs import logs
from jobs.models import LogChunk

TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class Stream:
    name: str
    text: str
    cut: bool


def tails(task_id: int, fencing_token: int) -> list[Stream]:
    """The last TAIL_BYTES of stdout and stderr, where there are any."""
    length = Func(F("data"), function="octet_length", output_field=IntegerField())
    ends = (
        LogChunk.objects.filter(task_id=task_id, fencing_token=fencing_token)
        .values_list("stream")
        .annotate(end=Max(F("start") + length))
        .order_by("-stream")
    )
    return [_tail(task_id, fencing_token, stream, end) for stream, end in ends]


def _tail(task_id: int, fencing_token: int, stream: str, end: int) -> Stream:
    after = max(end - TAIL_BYTES, 0)
    data, _ = logs.read(task_id, fencing_token, stream, after=after, limit=2 * TAIL_BYTES)
    return Stream(stream, data.decode(errors="replace"), cut=after > 0)
