from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from rest_framework.exceptions import APIException

from dtsproject import parsers, problems
from dtsproject.command import Command as BaseCommand
from dtsproject.command import user_name
from dtsproject.show import stamp
from jobs import audit
from scheduling import schedules
from scheduling.api.serializers import MAX_JITTER_SECONDS, ScheduleSubmission
from scheduling.models import CatchUp, Overlap, Schedule

VERBS = {
    "pause": "make nothing of it until it is resumed",
    "resume": "let it go on with its next time",
    "delete": "delete it and the list of its firings",
    "fire": "submit its job now; prints the job's id",
}
GIVEN = (
    "name", "cron", "time_zone", "overlap", "catch_up", "catch_up_limit", "starts_at", "ends_at",
    "jitter_seconds",
)  # fmt: skip


class Command(BaseCommand):
    help = "Makes, lists, pauses, resumes, fires and deletes schedules."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="list all, with the next time of each")
        create = verbs.add_parser("create", help="make one; prints its name")
        create.add_argument("name")
        create.add_argument("cron", help="five fields, or @daily and kin")
        create.add_argument("cmd", nargs="?", metavar="command", help="run by /bin/sh -c")
        create.add_argument("--file", help="its job as JSON, as for `submit --file`")
        create.add_argument("--queue")
        create.add_argument("--tz", dest="time_zone", metavar="ZONE", help="default: UTC")
        create.add_argument("--overlap", help=f"one of {', '.join(Overlap.values)}")
        create.add_argument("--catch-up", help=f"one of {', '.join(CatchUp.values)}")
        create.add_argument("--catch-up-limit", type=int, metavar="N")
        create.add_argument("--starts-at", metavar="TIME", help="ISO 8601 with offset")
        create.add_argument("--ends-at", metavar="TIME")
        create.add_argument(
            "--jitter-seconds", type=int, metavar="N", help=f"0 to {MAX_JITTER_SECONDS}"
        )
        for verb, meaning in VERBS.items():
            verbs.add_parser(verb, help=meaning).add_argument("name")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        match verb:
            case "list":
                self.list()
            case "create":
                self.create(options)
            case _:
                with transaction.atomic():
                    self.act(verb, options["name"])

    def list(self) -> None:
        for schedule in Schedule.objects.order_by("name"):
            zone = f"{schedule.cron} {schedule.time_zone}"
            next_at = stamp(schedule.next_run_at)
            self.stdout.write(
                f"{schedule.name:24} {schedule.state:6}  {zone:30}  next {next_at:28} "
                f"{schedule.paused_reason}".rstrip()
            )

    def create(self, options: dict[str, Any]) -> None:
        try:
            asked = ScheduleSubmission(data=described(options))
            asked.is_valid(raise_exception=True)
        except APIException as error:
            found = problems.faults(error.detail, "#")
            lines = [f"{fault['pointer']}: {fault['detail']}" for fault in found]
            raise CommandError("\n".join(lines), returncode=2) from error
        with transaction.atomic():
            made = schedules.create(asked.validated_data, created_by=user_name())
            self.record("create", made)
        self.stdout.write(made.name)

    def act(self, verb: str, name: str) -> None:
        schedule = Schedule.objects.filter(name=name).first() if name.isprintable() else None
        if schedule is None:
            raise CommandError(f"no schedule {name!a}; `schedule list` lists them", returncode=2)
        self.record(verb, schedule)
        if verb == "fire":
            self.stdout.write(str(schedules.fire(schedule.pk).job_id))
        elif verb == "delete":
            schedule.delete()
        else:
            {"pause": schedules.pause, "resume": schedules.resume}[verb](schedule.pk)

    def record(self, verb: str, schedule: Schedule) -> None:
        target = f"schedule {schedule.pk}"
        audit.record(user_name(), verb, [target], "manage.py schedule", name=schedule.name)


def described(options: dict[str, Any]) -> dict[str, Any]:
    """The schedule as the API would be given it. Raises CommandError and DRF's APIException."""
    if (options["cmd"] is None) == (options["file"] is None):
        raise CommandError("give either a command or --file", returncode=2)
    given = {name: options[name] for name in GIVEN if options[name] is not None}
    if options["cmd"] is not None:
        template = {"name": options["name"], "tasks": [{"payload": {"cmd": options["cmd"]}}]}
        template |= {"queue": options["queue"]} if options["queue"] is not None else {}
        return given | {"template": template}
    if options["queue"] is not None:
        raise CommandError("say queue in the file", returncode=2)
    try:
        return given | {"template": parsers.loads(Path(options["file"]).read_bytes())}
    except OSError as error:
        raise CommandError(f"{options['file']}: {error.strerror}", returncode=2) from error
