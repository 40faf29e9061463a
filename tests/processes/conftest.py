"""Real processes on the test database: schedulers, recoveries and workers, ended with the test."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings
from django.db import connection

from dtsproject.chaos.fleet import free_port, guards, signal_all
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
        self.port = free_port()
        parts = urlsplit(settings.DATABASE_URL)
        test_url = urlunsplit(parts._replace(path="/" + connection.settings_dict["NAME"]))
        self.environment = {
            **os.environ,
            **LEASE,
            "DATABASE_URL": test_url,
            "DJANGO_SETTINGS_MODULE": "dtsproject.settings",
            "DTS_LOCAL": "1",
            "DTS_STATE_DIR": str(folder),
            "WEB_CONCURRENCY": "1",
        }

    def start(self, *arguments: str, **environment: str | None) -> subprocess.Popen:
        """`environment` is beside the fleet's own; None takes a variable away."""
        given = {**self.environment, **environment}
        log = (self.folder / f"{len(self.processes)}-{arguments[0]}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env={name: value for name, value in given.items() if value is not None},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        self.processes.append(process)
        return process

    def api(self, *arguments: str, **environment: str) -> subprocess.Popen:
        """The API, once it answers; with arguments for gunicorn."""
        log = (self.folder / f"{len(self.processes)}-api.log").open("wb")
        self.processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *arguments],
                cwd=ROOT,
                env={**self.environment, "ORCH_PORT": str(self.port), **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )
        log.close()
        wait_until(lambda: self.ask("/readyz")[0] == 200, 60)
        return self.processes[-1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, dict, bytes]:
        """Status, headers and body of the API's answer; 0 where there is none."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()
        except OSError:
            return 0, {}, b""

    def scheduler(self, **environment: str) -> subprocess.Popen:
        return self.start("run_scheduler", **environment)

    def recovery(self) -> subprocess.Popen:
        return self.start("run_recovery")

    def worker(self, name: str, *arguments: str) -> subprocess.Popen:
        return self.start("run_worker", "--name", name, *arguments)

    def far_worker(self, name: str, token: str, *arguments: str) -> subprocess.Popen:
        """A worker that knows the API's URL and a token, and nothing else of the installation."""
        path = self.folder / f"{name}.token"
        path.write_text(f"{token}\n")
        unknown = [n for n in self.environment if n.startswith("DTS_")] + ["DATABASE_URL"]
        environment = dict.fromkeys(unknown) | {
            "DTS_STATE_DIR": str(self.folder / name),
            "DTS_LOCAL": "False",
        }
        given = ["--name", name, "--server", self.url, "--token-file", str(path), *arguments]
        return self.start("run_worker", *given, **environment)

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.log"))
        )

    def end(self) -> None:
        """Nothing is left, frozen or not: the guards, awake, kill what their workers ran."""
        signal_all(guards(self.folder), signal.SIGCONT)
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
