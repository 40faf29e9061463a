import re
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from rest_framework.exceptions import APIException

from dtsproject import problems
from dtsproject.command import Command as BaseCommand
from dtsproject.command import user_name
from jobs import audit, queue
from jobs.api.fields import NAME_OF_QUEUE, StrictSerializer
from jobs.api.limits import (
    BAD_KEY_DETAIL,
    MAX_QUEUE_NAME,
    LimitSubmission,
    QueueChange,
    is_limit_key,
)
from jobs.models import Limit, Queue


class Command(BaseCommand):
    help = "Bounds how many tasks of a concurrency key, or of a queue, run at once."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="list the limits of keys and of queues")
        set_ = verbs.add_parser("set", help="give a key or a queue this limit, and no other")
        set_.add_argument("key", nargs="?", help="a concurrency key, or its beginning and *")
        set_.add_argument("--queue", metavar="NAME", help="the limit of a queue instead")
        set_.add_argument("--max-running", type=int, metavar="N", help="queued or running at once")
        set_.add_argument("--rate", metavar="N/SECONDS", help="10/60: ten a minute")
        remove = verbs.add_parser("remove", help="let any number run again")
        remove.add_argument("key", nargs="?")
        remove.add_argument("--queue", metavar="NAME")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        if verb == "list":
            return self.list()
        key, name = options["key"], options["queue"]
        if (key is None) == (name is None):
            raise CommandError("give either a key or --queue", returncode=2)
        with transaction.atomic():
            if verb == "remove":
                return self.remove(key, name)
            if name is not None:
                return self.set_queue(name, options)
            return self.set_key(key, options)

    def list(self) -> None:
        for limit in Limit.objects.order_by("key"):
            rate = f"{limit.rate_count}/{limit.rate_seconds:g}" if limit.rate_count else "-"
            self.stdout.write(f"{limit.key:40} max {limit.max_running or '-':<8} rate {rate}")
        for found in Queue.objects.filter(max_running__isnull=False).order_by("name"):
            self.stdout.write(f"{'queue ' + found.name:40} max {found.max_running}")

    def set_key(self, key: str, options: dict[str, Any]) -> None:
        if not is_limit_key(key):
            raise CommandError(f"{key!a}: {BAD_KEY_DETAIL}", returncode=2)
        given = {"max_running": options["max_running"], **rate(options["rate"])}
        limit, _ = queue.limit_key(key, valid(LimitSubmission, given))
        self.record("limit", f"limit {limit.pk}", key=key, **given)

    def set_queue(self, name: str, options: dict[str, Any]) -> None:
        if options["rate"] is not None:
            raise CommandError("--rate is for keys; a queue has --max-running", returncode=2)
        if options["max_running"] is None:
            raise CommandError("give --max-running", returncode=2)
        if len(name) > MAX_QUEUE_NAME or not re.fullmatch(NAME_OF_QUEUE, name):
            raise CommandError(f"{name!a} cannot be a queue's name", returncode=2)
        given = valid(QueueChange, {"max_running": options["max_running"]})
        self.record("limit", f"queue {queue.limit_queue(name, **given).pk}", name=name, **given)

    def remove(self, key: str | None, name: str | None) -> None:
        if key is not None:
            limit = Limit.objects.filter(key=key).first() if is_limit_key(key) else None
            if limit is None:
                raise CommandError(f"no limit {key!a}; `limit list` lists them", returncode=2)
            queue.unlimit_key(limit.key)
            return self.record("unlimit", f"limit {limit.pk}", key=key)
        limited = Queue.objects.filter(max_running__isnull=False)
        found = limited.filter(name=name).first() if name and name.isprintable() else None
        if found is None:
            raise CommandError(f"queue {name!a} has no limit", returncode=2)
        queue.limit_queue(found.name, None)
        return self.record("limit", f"queue {found.pk}", name=name, max_running=None)

    def record(self, verb: str, target: str, **detail: Any) -> None:
        audit.record(user_name(), verb, [target], "manage.py limit", **detail)


def rate(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if not (match := re.fullmatch(r"(\d{1,9})/(\d{1,9}(?:\.\d{1,9})?)", text)):
        raise CommandError("--rate takes how many in how many seconds: 10/60", returncode=2)
    return {"rate_count": int(match[1]), "rate_seconds": float(match[2])}


def valid(rules: type[StrictSerializer], given: dict[str, Any]) -> dict[str, Any]:
    """What is given, if the API would take it. Raises CommandError."""
    try:
        asked = rules(data=given)
        asked.is_valid(raise_exception=True)
    except APIException as error:
        found = problems.faults(error.detail, "#")
        lines = [f"{fault['pointer']}: {fault['detail']}" for fault in found]
        raise CommandError("\n".join(lines), returncode=2) from error
    return asked.validated_data
