"""What the tests of the embedded PostgreSQL share."""

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg

PROJECT = Path(__file__).resolve().parents[2]


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def query(cluster, statement, **changed):
    with psycopg.connect(cluster.url(), **changed) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone() if cursor.description else None


START_CHILD = "process = cluster.start_child(); print(process and process.pid, flush=True)"
SLEEP = "import time; time.sleep(600)"


@contextmanager
def process(*command, **options):
    """A process that is gone, one way or another, after the block."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options) as started:
        try:
            yield started
        finally:
            started.kill()


def python(path, *steps, **options):
    """A process that runs `steps` on the cluster in `path`."""
    imports = "from pathlib import Path; from dtsproject.embedded import Cluster"
    program = "; ".join([imports, f"cluster = Cluster(Path({str(path)!r}))", *steps])
    return process(sys.executable, "-c", program, cwd=PROJECT, **options)
