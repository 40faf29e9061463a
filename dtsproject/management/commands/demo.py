import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, CommandParser
from rich.console import Console
from rich.table import Table

from dtsproject.command import Command as BaseCommand
from dtsproject.embedded import lifeline
from dtsproject.management.commands.stack import INTERRUPTED, refuse_taken_port, whole_number
from jobs.states import TERMINAL, Status

HOST = "127.0.0.1"
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


class Command(BaseCommand):
    help = "Run everything on this machine, submit a job of two tasks and show what happens."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--once",
            action="store_true",
            help="stop afterwards; exit 0 only if both tasks are done and HIGH started first",
        )
        parser.add_argument("--port", type=whole_number(1, 65535), default=settings.ORCH_PORT)

    def handle(self, *args: Any, once: bool, port: int, **options: Any) -> None:
        if not settings.LOCAL:
            raise CommandError(
                "the demo opens the API to everybody on this machine and makes an account:"
                " unset DATABASE_URL, or set DTS_LOCAL=1",
                returncode=2,
            )
        refuse_taken_port(HOST, port)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        good = False
        try:
            with running_stack(port) as stack:
                console = Console(highlight=False, markup=False, soft_wrap=True)
                good = Demo(f"http://{HOST}:{port}", stack, console).run()
                if not once:
                    self.stdout.write("Everything keeps running until Ctrl-C.")
                    stack.wait()
        except KeyboardInterrupt:
            sys.exit(0 if good and not once else INTERRUPTED)
        except OSError as error:
            said = f"the API did not do as it should ({error}); see {log_path()}"
            raise CommandError(said, returncode=1) from error
        if not good:
            raise CommandError(f"the demo did not go as it should; see {log_path()}", returncode=1)


class Demo:
    """What the demo does and shows, given a stack that is starting."""

    def __init__(self, url: str, stack: subprocess.Popen[bytes], console: Console) -> None:
        self.url = url
        self.stack = stack
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
            "HIGH started before low: its priority is higher.\n" if good else "Not as expected.\n"
        )
        return good

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):  # refused, or 503
                self.ask("/readyz")
                return
            if self.stack.poll() is not None or time.monotonic() > deadline:
                end = log_path().read_text(errors="replace").splitlines()[-8:]
                raise CommandError(
                    "\n  ".join(["DTS did not start. Its log ends:", *end]),
                    returncode=self.stack.returncode or 1,
                )
            time.sleep(POLL_SECONDS)

    def show_ways_in(self) -> None:
        password = refresh_admin()
        self.console.print(f"API     {self.url}/docs")
        self.console.print(f"Admin   {self.url}/admin/   name admin   password {password}")
        self.console.print(f"Logs    {log_path()}\n")
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


def log_path() -> Path:
    return settings.STATE_DIR / "demo.log"


@contextlib.contextmanager
def running_stack(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`manage.py stack` with one slot, so that priority alone decides who starts; then its end."""
    command = ["manage.py", "stack", "--workers", "1", "--slots", "1", "--port", str(port)]
    log_path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log_path().open("wb") as log:
        stack = subprocess.Popen(
            [sys.executable, *command],
            cwd=settings.BASE_DIR,
            env={**os.environ, "ORCH_HOST": HOST, "DTS_ANONYMOUS_ACCESS": "loopback"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lifeline.interrupt_on_parent_exit() if lifeline.kernel_can_tell() else None,
        )
    try:
        yield stack
    finally:
        while stack.poll() is None:
            stack.terminate()
            with contextlib.suppress(KeyboardInterrupt):  # then terminate it again: it hurries
                stack.wait()


def refresh_admin() -> str:
    """Makes or mends the account `admin`; returns its new password."""
    password = secrets.token_urlsafe(9)
    users = get_user_model()
    admin, _ = users._default_manager.get_or_create(username="admin")
    admin.is_active = admin.is_staff = admin.is_superuser = True
    admin.set_password(password)
    admin.save()
    return password
