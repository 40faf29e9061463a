"""The base of DTS's commands: what is wrong is said in one line, with exit status 2."""

import getpass
import signal
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError

from dtsproject import checks
from dtsproject.errors import Refusal
from dtsproject.loop import Loop, stop_on_signals
from dtsproject.postgresql.base import serve_as

# Django's own checks load the URLconf and all that belongs to it, which no loop uses.
LOOP_CHECKS = [checks.TAG]
INTERRUPTED = 128 + signal.SIGINT  # as shells have it


def user_name() -> str:
    """Who runs this; empty for an account without a name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


class Command(BaseCommand):
    def create_parser(self, *args: Any, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(*args, **kwargs)

        def error(message: str) -> None:
            if not parser.called_from_command_line:
                raise CommandError(message, returncode=2)
            parser.exit(2, f"{parser.prog}: {message}\n")

        setattr(parser, "error", error)  # noqa: B010 - argparse offers no other place
        return parser

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except Refusal as refusal:
            raise CommandError(refusal.detail, returncode=2) from refusal
        except OperationalError as error:
            reason = str(error).strip().splitlines()[0]
            raise CommandError(f"cannot use the database: {reason}", returncode=2) from error


class LoopCommand(Command):
    """Runs one Loop until a signal stops it."""

    requires_system_checks = LOOP_CHECKS
    loop_class: type[Loop]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="do one tick and exit")

    def handle(self, *args: Any, **options: Any) -> None:
        loop = self.loop_class()
        serve_as(type(loop).__name__.lower())
        stop_on_signals(loop.stop)
        loop.run(once=options["once"])
