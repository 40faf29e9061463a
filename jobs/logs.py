"""What attempts print: written by the worker that holds them, read by byte offset.

A table partitioned by day, so that old output goes by dropping a table, not by deleting rows.
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from django.db import connection, transaction

from dtsproject.conf import conf
from jobs.models import LogChunk
from jobs.specs import LogPart

DAYS_AHEAD = 2
PARTITION = re.compile(r"log_chunks_(\d{8})")

# Guarded like every write of a worker: only what is still held under the token is stored.
APPEND = """
INSERT INTO log_chunks (task_id, fencing_token, stream, start, data, claimed_at, at)
SELECT part.task_id, part.fencing_token, part.stream, part.start, part.data,
    lease.claimed_at, now()
FROM unnest(
    %(task_id)s::bigint[], %(fencing_token)s::bigint[], %(stream)s::text[],
    %(start)s::bigint[], %(data)s::bytea[]
) AS part (task_id, fencing_token, stream, start, data)
JOIN leases lease USING (task_id, fencing_token)
WHERE lease.worker_id = %(worker_id)s
ON CONFLICT DO NOTHING
"""


def append(worker_id: int, parts: Sequence[LogPart]) -> int:
    """Stores these parts of leases the worker holds; a part sent twice is stored once."""
    with connection.cursor() as cursor:
        cursor.execute(
            APPEND,
            {
                "worker_id": worker_id,
                **{
                    name: [getattr(part, name) for part in parts]
                    for name in ("task_id", "fencing_token", "stream", "start", "data")
                },
            },
        )
        return cursor.rowcount


def read(
    task_id: int, fencing_token: int, stream: str, *, after: int = 0, limit: int = 64 * 1024
) -> tuple[bytes, int]:
    """About `limit` bytes of a stream from offset `after` on, and the offset to go on from.

    Where a middle part was dropped for the log limit, the gap shows as `[... n bytes left out]`.
    """
    chunks = LogChunk.objects.filter(
        task_id=task_id, fencing_token=fencing_token, stream=stream
    ).order_by("start")
    data, position = b"", after
    for start, chunk in chunks.values_list("start", "data").iterator(chunk_size=100):
        chunk = bytes(chunk)
        if start + len(chunk) <= position:
            continue
        if start > position:
            data += f"\n[... {start - position} bytes left out]\n".encode()
        data += chunk[max(0, position - start) :]
        position = start + len(chunk)
        if len(data) >= limit:
            break
    return data, position


def kept(task_id: int, fencing_token: int, stream: str) -> bytes:
    """All of a stream that was stored: its head and, of a long one, its tail, with no gap shown."""
    chunks = LogChunk.objects.filter(task_id=task_id, fencing_token=fencing_token, stream=stream)
    return b"".join(bytes(data) for data in chunks.order_by("start").values_list("data", flat=True))


def make_partitions() -> int:
    """Makes the partitions of today and the next days that are missing; returns how many."""
    today = datetime.now(UTC).date()
    wanted = {today + timedelta(days=n) for n in range(DAYS_AHEAD + 1)}
    missing = sorted(wanted - set(partitions()))
    for day in missing:
        _make_partition(day)
    return len(missing)


def _make_partition(day: date) -> None:
    """Rows of that day which the DEFAULT partition caught move over in the same transaction."""
    name, end = f"log_chunks_{day:%Y%m%d}", day + timedelta(days=1)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE log_chunks IN SHARE UPDATE EXCLUSIVE MODE")
        if day in partitions():
            return
        cursor.execute(f"CREATE TABLE {name} (LIKE log_chunks INCLUDING ALL)")
        cursor.execute(
            "WITH moved AS (DELETE FROM log_chunks_default"  # noqa: S608 - a name made of a date
            " WHERE claimed_at >= %s AND claimed_at < %s RETURNING *)"
            f" INSERT INTO {name} SELECT * FROM moved",
            [f"{day} 00:00Z", f"{end} 00:00Z"],
        )
        cursor.execute(
            f"ALTER TABLE log_chunks ATTACH PARTITION {name}"
            f" FOR VALUES FROM ('{day} 00:00Z') TO ('{end} 00:00Z')"
        )


def drop_old_partitions() -> int:
    """Drops whole days of output past their retention; returns how many."""
    keep_from = datetime.now(UTC).date() - timedelta(days=conf().log_retention_days)
    old = [day for day in partitions() if day < keep_from]
    with connection.cursor() as cursor:
        for day in old:
            cursor.execute(f"DROP TABLE IF EXISTS log_chunks_{day:%Y%m%d}")
    return len(old)


def partitions() -> list[date]:
    """The days that have a partition of their own."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits"
            " WHERE inhparent = 'log_chunks'::regclass"
        )
        names = [PARTITION.fullmatch(name) for (name,) in cursor.fetchall()]
    return sorted(datetime.strptime(name[1], "%Y%m%d").date() for name in names if name)
