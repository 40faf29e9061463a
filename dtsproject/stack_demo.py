"""What `manage.py demo` does and shows, over HTTP, as anybody could with curl."""

import contextlib
import json
import secrets
import subprocess
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from rich.console import Console
from rich.table import Table

from jobs.states import TERMINAL, Status

JOB = """{
  "name": "demo-batch",
  "tasks": [
    {"payload": {"cmd": "echo low"}, "priority": 10},
    {"payload": {"cmd": "echo HIGH"}, "priority": 90}
  ]
}"""
# A first start makes a database; one after a crash replays its log.
START_SECONDS = 150
JOB_SECONDS = 120
POLL_SECONDS = 0.1


class Demo:
    """What the demo does and shows, given a stack that is starting."""

    def __init__(
        self, url: str, stack: subprocess.Popen[bytes], log: Path, console: Console
    ) -> None:
        self.url = url
        self.stack = stack
        self.log = log
        self.console = console
        # No proxy stands between this machine and itself, whatever the environment says.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def run(self) -> bool:
        """Whether both tasks ended done, HIGH started first."""
        started_at = time.monotonic()
        self.console.print("Starting database, API, scheduler, recovery and one worker ...")
        self.wait_until_ready()
        self.console.print(f"Ready after {time.monotonic() - started_at:.1f} s.\n")
        self.show_ways_in()
        job = self.ask("/api/v1/jobs", JOB)
        self.console.print(f"Job {job['id']} submitted, low first. The one slot ran it like this:")
        tasks = self.ended_tasks(job["id"])
        self.show(tasks)
        good = in_order(tasks)
        self.console.print(
            "HIGH started before low: its priority is higher.\n"
            if good
            else "That is not as expected. Does other work in the queue hold the one slot?\n"
        )
        return good

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):  # refused, or 503
                self.ask("/readyz")
                return
            if self.stack.poll() is not None or time.monotonic() > deadline:
                end = self.log.read_text(errors="replace").splitlines()[-8:]
                raise CommandError(
                    "\n  ".join(["DTS did not start. Its log ends:", *end]),
                    returncode=self.stack.returncode or 1,
                )
            time.sleep(POLL_SECONDS)

    def show_ways_in(self) -> None:
        password = refresh_admin()
        self.console.print(f"API     {self.url}/docs")
        self.console.print(f"Admin   {self.url}/admin/   name admin   password {password}")
        self.console.print(f"Logs    {self.log}\n")
        header = "-H 'Content-Type: application/json'"
        self.console.print(
            f"curl -X POST {self.url}/api/v1/jobs {header} -d '{JOB}'\n"
            f"curl '{self.url}/api/v1/tasks?status=done'\n"
        )

    def ended_tasks(self, job_id: int) -> list[dict[str, Any]]:
        """The job's tasks once all have ended, or when that takes too long; by their start."""
        deadline = time.monotonic() + JOB_SECONDS
        while True:
            tasks = self.ask(f"/api/v1/jobs/{job_id}/tasks")["results"]
            if all(t["status"] in TERMINAL for t in tasks) or time.monotonic() > deadline:
                return sorted(tasks, key=lambda task: task["started_at"] or "~")
            time.sleep(POLL_SECONDS)

    def show(self, tasks: list[dict[str, Any]]) -> None:
        table = Table("started", "priority", "task", "status", "output")
        for task in tasks:
            at = task["started_at"]
            clock = f"{datetime.fromisoformat(at):%H:%M:%S.%f}"[:-3] if at else "-"
            cells = (clock, task["priority"], task["id"], task["status"])
            table.add_row(*map(str, cells), task["result_text"].strip())
        self.console.print(table)

    def ask(self, path: str, body: str | None = None) -> Any:
        """The answer to GET, or to POST where there is a `body`."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            self.url + path,
            data=body.encode() if body else None,
            headers={"Content-Type": "application/json"},
        )
        with self.opener.open(request, timeout=10) as answer:
            return json.load(answer)


def in_order(tasks: list[dict[str, Any]]) -> bool:
    """Whether all are done, and HIGH strictly before low."""
    if [task["result_text"].strip() for task in tasks] != ["HIGH", "low"]:
        return False
    high, low = (task["started_at"] for task in tasks)
    return high < low and all(task["status"] == Status.DONE for task in tasks)


def refresh_admin() -> str:
    """Makes or mends the account `admin`; returns its new password."""
    password = secrets.token_urlsafe(9)
    users = get_user_model()
    admin, _ = users._default_manager.get_or_create(username="admin")
    admin.is_active = admin.is_staff = admin.is_superuser = True
    admin.set_password(password)
    admin.save()
    return password
