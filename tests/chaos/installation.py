"""A whole DTS of real processes on a PostgreSQL of its own, which a test may freeze and kill."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from dtsproject.embedded import Cluster
from tests.processes.conftest import Fleet

API = "dts api"
COUNT_CONNECTIONS = """
SELECT application_name, count(*) FROM pg_stat_activity
WHERE application_name LIKE 'dts%' GROUP BY 1
"""
# What must hold of the work once it is over, whatever happened meanwhile.
ENDINGS = """
SELECT status, count(*), max(recorded) FROM (
    SELECT status, count(attempts.id) FILTER (WHERE outcome = status) AS recorded
    FROM tasks LEFT JOIN attempts ON task_id = tasks.id GROUP BY tasks.id
) AS ended GROUP BY 1
"""


class Installation(Fleet):
    def __init__(self, **environment: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="dts-chaos-"))
        self.home.chmod(0o711)  # root's PostgreSQL runs under another account
        folder = self.home / "state"
        folder.mkdir()
        super().__init__(folder)
        self.cluster = Cluster(self.home / "postgres")
        self.environment |= {
            "DATABASE_URL": self.cluster.url(),
            "DTS_ANONYMOUS_ACCESS": "loopback",
            **environment,
        }

    def migrate(self) -> None:
        command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(command, cwd=ROOT, env=self.environment, check=True)

    def submit(self, *commands: str, **task: object) -> int | None:
        """The id of the job, if it was acknowledged."""
        tasks = [{"payload": {"cmd": command}, **task} for command in commands]
        status, _, answer = self.ask("/api/v1/jobs", {"name": "chaos", "tasks": tasks})
        return json.loads(answer)["id"] if status == 201 else None

    def rows(self, statement: str, *parameters: object) -> list[tuple]:
        url = self.environment["DATABASE_URL"]
        with psycopg.connect(url, application_name="test", connect_timeout=5) as connection:
            return connection.execute(statement, parameters or None).fetchall()

    def connections(self) -> dict[str, int]:
        """How many of each kind of process."""
        return dict(self.rows(COUNT_CONNECTIONS))

    def over(self) -> bool:
        return not self.rows("SELECT FROM tasks WHERE final_status IS NULL LIMIT 1")

    def endings(self) -> dict[str, tuple[int, int]]:
        """Of each state: how many tasks, and how often at most one of them was recorded so."""
        return {status: (tasks, most) for status, tasks, most in self.rows(ENDINGS)}

    def alive(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    def log_of(self, kind: str) -> str:
        return "".join(path.read_text() for path in self.folder.glob(f"*{kind}.log"))

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGKILL)
        super().end()
        print(self.logs())
        self.cluster.stop()
        shutil.rmtree(self.home)


ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def frozen(cluster: Cluster) -> Iterator[None]:
    """Connections are taken meanwhile, and nothing is answered."""
    pids = stop_all(cluster)
    try:
        yield
    finally:
        send(pids, signal.SIGCONT)


def kill(cluster: Cluster) -> None:
    send(stop_all(cluster), signal.SIGKILL)


def stop_all(cluster: Cluster) -> list[int]:
    """Stops its processes where they stand, the postmaster first: then none is born meanwhile."""
    (first, *_) = (cluster.folder.data / "postmaster.pid").read_text().split()
    send([int(first)], signal.SIGSTOP)
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    send([*map(int, children)], signal.SIGSTOP)
    return [int(first), *map(int, children)]


def send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def watch(seconds: float, look) -> list:
    """What `look` gave, again and again for so long."""
    seen, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        seen.append(look())
        time.sleep(0.05)
    return seen
