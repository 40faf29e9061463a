"""The settings of the test run: the real ones, on a PostgreSQL that ends with the run.

DTS_TEST_DATABASE_URL names another server instead. Processes that a test starts inherit
DATABASE_URL; each pytest-xdist worker has a cluster of its own.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from dtsproject.embedded import Cluster

PREFIX = "dts-test-"
STALE_SECONDS = 600


def start_throw_away_cluster() -> str:
    """Start PostgreSQL in a fresh folder, removed at exit, and return its URL."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(0o711)  # root's server runs under another account
    # Held until this process ends, however that happens; see remove_stale_clusters.
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
    cluster, owner = Cluster(folder / "postgres"), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not in a forked child
            cluster.stop()
            shutil.rmtree(folder)

    atexit.register(remove)
    cluster.start_child()
    return cluster.url()


def remove_stale_clusters() -> None:
    """Remove what a killed run left behind: a folder that nobody holds, and not just made."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        found = folder.stat()
        if found.st_uid != os.geteuid() or time.time() - found.st_mtime < STALE_SECONDS:
            continue
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Cluster(folder / "postgres").stop()
            shutil.rmtree(folder)
        except BlockingIOError:
            pass
        finally:
            os.close(handle)


# A process started by a test finds its run's name here, and takes its DATABASE_URL.
run = os.environ.get("PYTEST_XDIST_WORKER", "main")
if url := os.environ.get("DTS_TEST_DATABASE_URL"):
    os.environ["DATABASE_URL"] = url
elif os.environ.get("DTS_TEST_RUN") != run:
    remove_stale_clusters()
    os.environ["DATABASE_URL"] = start_throw_away_cluster()
    os.environ["DTS_TEST_RUN"] = run
os.environ.setdefault("DTS_LOCAL", "1")

from dtsproject.settings import *  # noqa: E402, F403
