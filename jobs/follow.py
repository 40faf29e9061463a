"""Follows a job until its last task has ended."""

import time
from collections.abc import Iterator

from django.db import OperationalError, connection

from dtsproject.conf import conf
from jobs import counts
from jobs.states import TERMINAL, Status

POLL_SECONDS = 0.25
LIVE = [status for status in Status if status not in TERMINAL]


def follow(job_id: int) -> Iterator[counts.Progress | None]:
    """The job's progress now and then; the last one is that of its end.

    None stands for a database that does not answer; it is asked again until it does.
    """
    while True:
        try:
            progress = counts.progress([job_id], cap=conf().max_tasks_per_stream)[job_id]
        except OperationalError:
            connection.close()
            yield None
            time.sleep(4 * POLL_SECONDS)
            continue
        yield progress
        if not any(progress[status] for status in LIVE):
            return
        time.sleep(POLL_SECONDS)
