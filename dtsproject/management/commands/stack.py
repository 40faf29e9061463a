import argparse
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser
from django.db import connection
from rich.console import Console
from rich.text import Text

from dtsproject.command import INTERRUPTED
from dtsproject.command import Command as BaseCommand
from dtsproject.conf import conf
from dtsproject.embedded import Cluster, EmbeddedError
from dtsproject.stack import Show, Stack
from dtsproject.stack_programs import Database, Program
from workers.management.commands.run_worker import slot_count

STYLES = ("cyan", "magenta", "green", "yellow", "blue", "bright_red")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: a decimal number from `low` to `high`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"give a number from {low} to {high}, not {text!r}")
        return int(text)

    return parse


class Command(BaseCommand):
    help = "Run everything here: database if need be, API, scheduler, recovery, workers."

    def add_arguments(self, parser: CommandParser) -> None:
        port = settings.ORCH_PORT
        parser.add_argument("--workers", type=whole_number(0, 100), default=2)
        parser.add_argument("--slots", type=slot_count, default=4, help="of each worker")
        parser.add_argument(
            "--port", type=whole_number(1, 65535), default=port, help=f"of the API (here: {port})"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_taken_port(settings.ORCH_HOST, options["port"])
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with database() as local:
                names = [worker_name(options["port"], n + 1) for n in range(options["workers"])]
                show = shower(["database", "api", "scheduler", "recovery", *names])
                show("stack", f"http://{settings.ORCH_HOST}:{options['port']}/ (Ctrl-C stops all)")
                Stack([local, *groups(options["port"], names, options["slots"])], show).run()
        except EmbeddedError as error:
            raise CommandError(str(error), returncode=2) from error
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)


def refuse_taken_port(host: str, port: int) -> None:
    """Raises CommandError (exit 2) unless a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"cannot listen on {host}:{port} ({error.strerror}): stop what does, or give"
                " another --port or ORCH_PORT",
                returncode=2,
            ) from error


@contextlib.contextmanager
def database() -> Iterator[list[Program]]:
    """The database, migrated: the embedded one, as a program to keep running, or none of ours."""
    local = None if os.environ.get("DATABASE_URL") else Database(Cluster())
    try:
        if local:
            local.start()
        call_command("migrate", interactive=False, verbosity=0)
        connection.close()
        yield [local] if local and local.process else []
    finally:
        if local:
            local.terminate()


def groups(port: int, names: list[str], slots: int) -> list[list[Program]]:
    """The programs that need the database, in the order of their start."""
    environment = {
        "WEB_CONCURRENCY": "1",
        **os.environ,
        "ORCH_HOST": settings.ORCH_HOST,
        "ORCH_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
    }
    drain_seconds = conf().drain_seconds + conf().kill_grace_seconds + 10

    def program(name: str, *arguments: str, stop_seconds: float = 10) -> Program:
        return Program(
            name,
            [sys.executable, *arguments],
            folder=settings.BASE_DIR,
            environment=environment,
            stop_seconds=stop_seconds,
        )

    def worker(name: str) -> Program:
        arguments = ["run_worker", "--name", name, "--slots", str(slots)]
        return program(name, "manage.py", *arguments, stop_seconds=drain_seconds)

    return [
        [program("api", "-m", "gunicorn", "-c", "gunicorn.conf.py")],
        [program(name, "manage.py", f"run_{name}") for name in ("scheduler", "recovery")],
        [worker(name) for name in names],
    ]


def worker_name(port: int, number: int) -> str:
    """The same at each start, so that a worker takes back at once what its former boot held."""
    return f"{socket.gethostname()}-{port}-{number}"


def shower(names: list[str]) -> Show:
    """Prints lines behind their program's name, coloured on a terminal."""
    console = Console(highlight=False, soft_wrap=True)
    styles = dict(zip(names, cycle(STYLES), strict=False))
    width = max(map(len, names))

    def show(name: str, line: str) -> None:
        console.print(Text.assemble((f"{name:<{width}} | ", styles.get(name, "bold")), line))

    return show
