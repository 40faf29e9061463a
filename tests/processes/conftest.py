"""Real processes on the test database: schedulers, recoveries and workers, ended with the test."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings
from django.db import connection

from dtsproject.chaos.fleet import guards
from tests.helpers import wait_until

ROOT = Path(__file__).parent.parent.parent
# Short enough to lapse within a test, long enough for a busy machine.
LEASE = {
    "DTS_LEASE_SECONDS": "4",
    "DTS_HEARTBEAT_SECONDS": "0.5",
    "DTS_KILL_GRACE_SECONDS": "0.5",
    "DTS_RECOVERY_INTERVAL_SECONDS": "0.2",
    "DTS_BACKOFF_BASE_SECONDS": "0.1",
}


class Fleet:
    """Starts `manage.py` processes and knows how to end them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen] = []
        parts = urlsplit(settings.DATABASE_URL)
        test_url = urlunsplit(parts._replace(path="/" + connection.settings_dict["NAME"]))
        self.environment = {
            **os.environ,
            **LEASE,
            "DATABASE_URL": test_url,
            "DJANGO_SETTINGS_MODULE": "dtsproject.settings",
            "DTS_LOCAL": "1",
            "DTS_STATE_DIR": str(folder),
        }

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        log = (self.folder / f"{len(self.processes)}-{arguments[0]}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env={**self.environment, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        self.processes.append(process)
        return process

    def scheduler(self, **environment: str) -> subprocess.Popen:
        return self.start("run_scheduler", **environment)

    def recovery(self) -> subprocess.Popen:
        return self.start("run_recovery")

    def worker(self, name: str, *arguments: str) -> subprocess.Popen:
        return self.start("run_worker", "--name", name, *arguments)

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.log"))
        )

    def end(self) -> None:
        """Nothing is left, frozen or not: the guards, awake, kill what their workers ran."""
        for guard in guards(self.folder):
            guard.resume()
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGCONT)
                process.kill()
            process.wait()
        wait_until(lambda: not guards(self.folder))


@pytest.fixture
def fleet(transactional_db, tmp_path):
    made = Fleet(tmp_path)
    yield made
    made.end()
    print(made.logs())  # shown by pytest for a test that failed
