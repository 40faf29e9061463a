import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from rest_framework.exceptions import APIException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dts_client import ApiError, Client, Unreachable
from dtsproject import parsers, problems
from dtsproject.command import Command as BaseCommand
from dtsproject.command import user_name
from dtsproject.logs import harmless
from dtsproject.show import duration
from jobs.doors import DatabaseDoor, Door, ServerDoor
from jobs.states import OnDuplicate, Status

SHOWN_TASKS = 20
TASK_OPTIONS = (
    "priority",
    "requires",
    "slots",
    "timeout_seconds",
    "max_retries",
    "concurrency_key",
)
JOB_OPTIONS = ("name", "queue")
# A person waits for the answer.
PATIENCE_SECONDS = 5


class Command(BaseCommand):
    help = "Submit a job: one shell command, or a JSON file as for POST /api/v1/jobs."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("cmd", nargs="?", metavar="command", help="run by /bin/sh -c")
        parser.add_argument("--file", help="the job as JSON; - reads standard input")
        parser.add_argument("--name", help="default: the command")
        parser.add_argument("--queue")
        parser.add_argument("--priority", type=int, help="higher runs first, -100 to 100")
        parser.add_argument(
            "--requires",
            type=words,
            help="what its worker must have, labels and sizes: 'gpu,region=eu,mem_mb>=2000'",
        )
        parser.add_argument("--slots", type=int, help="how many of its worker's slots it takes (1)")
        parser.add_argument("--timeout", type=float, dest="timeout_seconds", metavar="SECONDS")
        parser.add_argument("--max-retries", type=int)
        parser.add_argument("--concurrency-key", metavar="KEY", help="by what a limit counts it")
        parser.add_argument(
            "--unique", metavar="KEY", help="of jobs with this key in the queue, one at a time"
        )
        parser.add_argument(
            "--on-duplicate",
            choices=OnDuplicate.values,
            help="while another holds the key: reject (default), join it, or replace it",
        )
        parser.add_argument(
            "--idempotency-key", metavar="KEY", help="given again, it names the same job again"
        )
        parser.add_argument(
            "--wait", action="store_true", help="follow it; exit 0 only if all tasks are done"
        )
        parser.add_argument("--server", metavar="URL", help="submit there, without a database")
        parser.add_argument(
            "--token-file", metavar="FILE", help="holds the token for it; default: DTS_TOKEN"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            door = self.door(options)
            job_id, total, warned = door.submit(description(options), options["idempotency_key"])
            try:
                self.stdout.write(str(job_id))
                self.stdout.flush()
                for warning in warned:
                    self.stderr.write(warning_line(warning))
                if options["wait"]:
                    self.wait(door, job_id, total)
            except KeyboardInterrupt:
                again = f"look again: curl {door.where(job_id)}"
                self.stderr.write(f"job {job_id} goes on without you; {again}")
                raise
        except APIException as error:
            found = problems.faults(error.detail, "#")
            raise CommandError("\n".join(map(fault_line, found)), returncode=2) from error
        except ApiError as error:
            lines = map(fault_line, error.errors) if error.errors else [error.detail or str(error)]
            raise CommandError("\n".join(lines), returncode=2) from error
        except Unreachable as error:
            raise CommandError(f"cannot reach the server: {error}", returncode=2) from error

    def door(self, options: dict[str, Any]) -> Door:
        if options["server"] is None:
            if options["token_file"] is not None:
                raise CommandError("--token-file goes with --server", returncode=2)
            return DatabaseDoor(user_name())
        token = settings.TOKEN
        if options["token_file"] is not None:
            token = read(options["token_file"]).decode(errors="replace").strip()
        try:
            return ServerDoor(Client(options["server"], token, patience=PATIENCE_SECONDS))
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from error

    def wait(self, door: Door, job_id: int, total: int) -> None:
        done = show_progress(door, job_id, total)
        self.show_ends(door, job_id, total, done)
        if done < total:
            raise CommandError(f"{total - done} of {total} tasks did not end well", returncode=1)

    def show_ends(self, door: Door, job_id: int, total: int, done: int) -> None:
        """Every task of a small job, with its output; of a large one those that are not done."""
        many = total > SHOWN_TASKS
        if many:
            self.stdout.write(f"{done} of {total} tasks are done")
        for end in door.ends(job_id, not_done=many, limit=SHOWN_TASKS):
            self.stdout.write(f"-- {end.status} in {duration(end.seconds)}: {harmless(end.title)}")
            if end.output:
                self.stdout.write(end.output)


def description(options: dict[str, Any]) -> object:
    """The job as the API would be given it. Raises CommandError and DRF's APIException."""
    given = {
        name: options[name] for name in (*JOB_OPTIONS, *TASK_OPTIONS) if options[name] is not None
    }
    if (options["cmd"] is None) == (options["file"] is None):
        raise CommandError("give either a command or --file", returncode=2)
    if options["unique"] is not None:
        given["unique"] = {"key": options["unique"]}
        if options["on_duplicate"]:
            given["unique"]["on_duplicate"] = options["on_duplicate"]
    elif options["on_duplicate"]:
        raise CommandError("--on-duplicate goes with --unique", returncode=2)
    if options["file"] is None:
        task = {name: given.pop(name) for name in TASK_OPTIONS if name in given}
        task["payload"] = {"cmd": options["cmd"]}
        return {"name": options["cmd"][:200], **given, "tasks": [task]}
    if given:
        raise CommandError(f"say {', '.join(given)} in the file", returncode=2)
    return parsers.loads(read(options["file"]))


def read(name: str) -> bytes:
    """A file's content; of `-`, standard input. Raises CommandError."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}", returncode=2) from error


def show_progress(door: Door, job_id: int, total: int) -> int:
    """A bar on standard error, if that is a terminal, until every task has ended.

    Returns how many are done.
    """
    console = Console(stderr=True)
    columns: Iterable[Any] = (
        TextColumn(f"job {job_id}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    done = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("", total=total)
        for counts in door.follow(job_id):
            if counts is None:
                bar.update(shown, description="[red]nobody answers")
                continue
            done = counts[Status.DONE]
            failed = counts[Status.FAILED] + counts[Status.CANCELLED]
            text = f"{counts[Status.IN_PROGRESS]} running, {failed} failed"
            bar.update(shown, completed=done + failed, description=text)
    return done


def fault_line(fault: dict[str, Any]) -> str:
    return f"{fault.get('pointer', '')}: {fault['detail']}"


def warning_line(warning: Mapping[str, Any]) -> str:
    more = f" and {warning['tasks'] - 1} more" if warning["tasks"] > 1 else ""
    return f"warning: {warning['pointer']}{more}: {warning['detail']}"


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
