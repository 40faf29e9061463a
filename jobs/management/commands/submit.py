import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from rest_framework.exceptions import APIException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dtsproject import parsers, problems
from dtsproject.command import Command as BaseCommand
from dtsproject.command import user_name
from dtsproject.show import duration
from jobs import intake
from jobs.api.serializers import job_spec
from jobs.follow import follow
from jobs.models import Job, Task
from jobs.states import Status

SHOWN_TASKS = 20
TASK_OPTIONS = ("priority", "requires", "timeout_seconds", "max_retries")
JOB_OPTIONS = ("name", "queue")


class Command(BaseCommand):
    help = "Submit a job: one shell command, or a JSON file as for POST /api/v1/jobs."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("cmd", nargs="?", metavar="command", help="run by /bin/sh -c")
        parser.add_argument("--file", help="the job as JSON; - reads standard input")
        parser.add_argument("--name", help="default: the command")
        parser.add_argument("--queue")
        parser.add_argument("--priority", type=int, help="higher runs first, -100 to 100")
        parser.add_argument("--requires", type=words, help="labels its worker must have: gpu,eu")
        parser.add_argument("--timeout", type=float, dest="timeout_seconds", metavar="SECONDS")
        parser.add_argument("--max-retries", type=int)
        parser.add_argument(
            "--idempotency-key", metavar="KEY", help="given again, it names the same job again"
        )
        parser.add_argument(
            "--wait", action="store_true", help="follow it; exit 0 only if all tasks are done"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            described = description(options)
            spec = job_spec(described)
        except APIException as error:
            found = problems.faults(error.detail, "#")
            lines = [f"{fault['pointer']}: {fault['detail']}" for fault in found]
            raise CommandError("\n".join(lines), returncode=2) from error
        user, given = user_name(), options["idempotency_key"]
        key = None if given is None else intake.Key.of(given, f"command {user}", described)
        job, _ = intake.take_in(spec, submitted_by=user, key=key)
        try:
            self.stdout.write(str(job.pk))
            if options["wait"]:
                self.wait(job, len(spec.tasks))
        except KeyboardInterrupt:
            where = f"http://{settings.ORCH_HOST}:{settings.ORCH_PORT}/api/v1/jobs/{job.pk}/tasks"
            self.stderr.write(f"job {job.pk} goes on without you; look again: curl {where}")
            raise

    def wait(self, job: Job, total: int) -> None:
        show_progress(job, total)
        done = Task.objects.filter(job=job, final_status=Status.DONE).count()
        self.show_ends(job, total, done)
        if done < total:
            raise CommandError(f"{total - done} of {total} tasks did not end well", returncode=1)

    def show_ends(self, job: Job, total: int, done: int) -> None:
        """Every task of a small job, with its output; of a large one those that are not done."""
        tasks = Task.objects.filter(job=job).order_by("pk")
        if total > SHOWN_TASKS:
            self.stdout.write(f"{done} of {total} tasks are done")
            tasks = tasks.exclude(final_status=Status.DONE)
        for task in tasks[:SHOWN_TASKS]:
            self.stdout.write(f"-- {task.status} in {took(task)}: {task}")
            if task.result_text:
                self.stdout.write(task.result_text)


def description(options: dict[str, Any]) -> object:
    """The job as the API would be given it. Raises CommandError and DRF's APIException."""
    given = {
        name: options[name] for name in (*JOB_OPTIONS, *TASK_OPTIONS) if options[name] is not None
    }
    if (options["cmd"] is None) == (options["file"] is None):
        raise CommandError("give either a command or --file", returncode=2)
    if options["file"] is None:
        task = {name: given.pop(name) for name in TASK_OPTIONS if name in given}
        task["payload"] = {"cmd": options["cmd"]}
        return {"name": options["cmd"][:200], **given, "tasks": [task]}
    if given:
        raise CommandError(f"say {', '.join(given)} in the file", returncode=2)
    try:
        if options["file"] == "-":
            return parsers.loads(sys.stdin.buffer.read())
        return parsers.loads(Path(options["file"]).read_bytes())
    except OSError as error:
        raise CommandError(f"{options['file']}: {error.strerror}", returncode=2) from error


def show_progress(job: Job, total: int) -> None:
    """A bar on standard error, if that is a terminal, until every task has ended."""
    console = Console(stderr=True)
    columns: Iterable[Any] = (
        TextColumn(f"job {job.pk}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("", total=total)
        for progress in follow(job.pk):
            if progress is None:
                bar.update(shown, description="[red]the database does not answer")
                continue
            failed = progress[Status.FAILED].value + progress[Status.CANCELLED].value
            words = f"{progress[Status.IN_PROGRESS].value} running, {failed} failed"
            bar.update(shown, completed=progress[Status.DONE].value + failed, description=words)


def took(task: Task) -> str:
    if task.started_at is None or task.completed_at is None:
        return "-"
    return duration(task.completed_at - task.started_at)


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
