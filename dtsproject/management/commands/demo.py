import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from rich.console import Console

from dtsproject.command import INTERRUPTED
from dtsproject.command import Command as BaseCommand
from dtsproject.embedded import lifeline
from dtsproject.management.commands.stack import refuse_taken_port, whole_number
from dtsproject.stack_demo import Demo

HOST = "127.0.0.1"


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
                good = Demo(f"http://{HOST}:{port}", stack, log_path(), console).run()
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
            preexec_fn=lifeline.signal_on_parent_exit(signal.SIGINT),
        )
    try:
        yield stack
    finally:
        while stack.poll() is None:
            stack.terminate()
            with contextlib.suppress(KeyboardInterrupt):  # then terminate it again: it hurries
                stack.wait()
