import json
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone
from rest_framework.exceptions import APIException

from dtsproject import parsers, problems
from dtsproject.command import Command as BaseCommand
from dtsproject.errors import Refusal
from jobs.api.fields import instant
from scheduling.cron import Cron, zone_of

MOST = 1_000
KNOWN = ("expr", "tz", "from", "count", "inclusive")


class BadQuestion(Refusal):
    status, code, title = 400, "invalid", "The question is not valid"


class Command(BaseCommand):
    help = "Print when a cron expression's times come; no database is needed."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "expr",
            metavar="expression",
            help="five fields or @daily and kin; - answers a line of JSON for each on standard "
            'input: {"expr", "tz", "from", "count", "inclusive"}',
        )
        parser.add_argument("--tz", metavar="ZONE", help="such as Europe/Berlin; default: UTC")
        parser.add_argument("--from", metavar="TIME", help="ISO 8601 with offset; default: now")
        parser.add_argument("--count", type=int, metavar="N", help="how many times; default: 5")
        parser.add_argument(
            "--inclusive", action="store_true", default=None, help="that time itself may be one"
        )
        parser.add_argument("--json", action="store_true", help='print {"times": [...]}')

    def handle(self, *args: Any, **options: Any) -> None:
        given = {name: options[name] for name in KNOWN if options[name] is not None}
        if given == {"expr": "-"}:
            for line in sys.stdin.buffer:
                if line.strip():
                    self.stdout.write(json.dumps(answer_line(line)))
                    self.stdout.flush()
            return
        times = answer(given)
        if options["json"]:
            self.stdout.write(json.dumps({"times": times}))
        elif times:
            self.stdout.write("\n".join(times))
        else:
            self.stderr.write("no such time comes in 50 years")


def answer_line(line: bytes) -> dict[str, Any]:
    try:
        return {"times": answer(parsers.loads(line))}
    except Refusal as refusal:
        return {"error": refusal.detail}
    except APIException as error:
        return {"error": next(problems.faults([error.detail], ""))["detail"]}


def answer(question: object) -> list[str]:
    """The times asked for, each in ISO 8601 with its offset. Raises Refusal."""
    if not isinstance(question, Mapping):
        raise BadQuestion(f"give an object with some of {', '.join(KNOWN)}")
    if unknown := [name for name in question if name not in KNOWN]:
        raise BadQuestion(f"{unknown[0]}: there is no such member; there are {', '.join(KNOWN)}")
    expr, tz = (text(question, name, default) for name, default in (("expr", None), ("tz", "UTC")))
    cron, zone = Cron(expr), zone_of(tz)
    count, inclusive = question.get("count", 5), question.get("inclusive", False)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST:
        raise BadQuestion(f"count: give a whole number from 1 to {MOST}")
    if not isinstance(inclusive, bool):
        raise BadQuestion("inclusive: give true or false")
    after = start(question) - timedelta(microseconds=inclusive)
    return [time.astimezone(zone).isoformat() for time in islice(cron.after(after, zone), count)]


def text(question: Mapping[str, Any], name: str, default: str | None) -> str:
    given = question.get(name, default)
    if not isinstance(given, str):
        raise BadQuestion(f"{name}: give a string")
    return given


def start(question: Mapping[str, Any]) -> datetime:
    """`from`, or now. Raises BadQuestion."""
    if "from" not in question:
        return timezone.now()
    moment = instant(text(question, "from", None))
    if moment is None or moment.year < 1000:
        raise BadQuestion(
            "from: give a time with its offset from UTC, such as 2030-01-31T08:00:00+01:00"
        )
    return moment
