import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from rich.console import Console

from dtsproject.chaos.checks import check
from dtsproject.chaos.figures import figures
from dtsproject.chaos.report import show
from dtsproject.chaos.run import Failed, Show, run
from dtsproject.command import Command as BaseCommand
from dtsproject.embedded import EmbeddedError
from dtsproject.management.commands.stack import whole_number

SHOWN_EVERY_SECONDS = 10.0


class Command(BaseCommand):
    help = (
        "Break DTS on a database of its own, heal it, and prove that nothing was lost or doubled."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seconds", type=whole_number(5, 86_400), default=60)
        parser.add_argument(
            "--seed", type=whole_number(0, 2**31), default=1, help="the same one, the same faults"
        )
        parser.add_argument("--history", type=Path, help="write what happened here, as NDJSON")
        parser.add_argument("--json", type=Path, help="write the figures here")

    def handle(self, *args: Any, seconds: int, seed: int, **options: Any) -> None:
        for file in filter(None, (options["history"], options["json"])):
            if not file.parent.is_dir():
                raise CommandError(f"{file.parent} is no folder to write into", returncode=2)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        console = Console(highlight=False, markup=False, soft_wrap=True)
        folder = Path(tempfile.mkdtemp(prefix="dts-chaos-"))
        folder.chmod(0o711)  # root's PostgreSQL runs under another account
        try:
            with progress(console) as told:
                history = run(seconds, seed, folder, told)
        except (Failed, EmbeddedError, OSError) as error:
            raise CommandError(f"{error} (its logs: {folder})", returncode=2) from error
        breaches = check(history)
        found = figures(history, breaches)
        if options["history"]:
            history.write(options["history"])
        if options["json"]:
            options["json"].write_text(json.dumps(found, indent=2) + "\n")
        show(found, console)
        if breaches:
            history.write(folder / "history.ndjson")
            console.print(f"The history and the logs of all processes: {folder}")
            sys.exit(1)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Show]:
    """A line that changes, on a terminal; elsewhere, as in CI, a new one now and then."""
    shown_at = 0.0

    def told(text: str) -> None:
        nonlocal shown_at
        if console.is_terminal:
            status.update(text)
        elif time.monotonic() - shown_at > SHOWN_EVERY_SECONDS:
            shown_at = time.monotonic()
            console.print(text)

    with console.status("starting") as status:
        yield told
