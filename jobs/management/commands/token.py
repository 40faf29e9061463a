import re
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from dtsproject.command import Command as BaseCommand
from dtsproject.command import user_name
from dtsproject.logs import harmless
from jobs import audit
from jobs.api.fields import LABEL
from jobs.models import Token
from jobs.models.access import SCOPES

CREATE = ("name", "scopes", "expires_days", "owner", "worker")


class Command(BaseCommand):
    help = "Makes, lists and revokes the tokens that programs use the API with."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a token and print it, this once")
        create.add_argument("name", help="what or who uses it")
        create.add_argument("--scopes", default="read", help=f"some of {','.join(SCOPES)}")
        create.add_argument("--expires-days", type=float, help="default: never")
        create.add_argument("--owner", metavar="USER", help="it ends with this user's account")
        create.add_argument("--worker", metavar="NAME", help="the one worker that it may be")
        verbs.add_parser("list", help="list tokens, never their secrets")
        revoke = verbs.add_parser("revoke", help="refuse a token from now on")
        revoke.add_argument("prefix", help="the eight characters after dts_, or the token")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        match verb:
            case "create":
                self.create(**{name: options[name] for name in CREATE})
            case "list":
                self.list()
            case "revoke":
                self.revoke(options["prefix"])

    def create(
        self,
        name: str,
        scopes: str,
        expires_days: float | None,
        owner: str | None,
        worker: str | None,
    ) -> None:
        wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
        check(name, wanted, expires_days, worker)
        expires_at = timezone.now() + timedelta(days=expires_days) if expires_days else None
        with transaction.atomic():
            token, text = Token.issue(
                name, wanted, expires_at, owner=self.user(owner), worker_name=worker or ""
            )
            self.record("create token", token)
        self.stdout.write(text)
        self.stderr.write(f"Token {name} ({','.join(wanted)}); it cannot be shown again.")

    def user(self, name: str | None) -> User | None:
        if name is None:
            return None
        user = User.objects.filter(username=name).first() if name.isprintable() else None
        if user is None:
            raise CommandError(f"no user {name!a}; `createsuperuser` makes one", returncode=2)
        return user

    def list(self) -> None:
        for token in Token.objects.select_related("owner").order_by("pk"):
            used = f"{token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "never"
            scopes = ",".join(token.scopes)
            ends = f"{token.expires_at:%Y-%m-%d %H:%M}" if token.expires_at else "never"
            owner, worker = token.owner or "-", token.worker_name or "-"
            self.stdout.write(
                f"{token.prefix}  {token.state:8}  used {used:16}  expires {ends:16}  {scopes}"
                f"  owner {owner}  worker {worker}  {harmless(token.name)}"
            )

    def revoke(self, given: str) -> None:
        prefix = given.removeprefix("dts_")[:8]
        with transaction.atomic():
            tokens = Token.objects.select_for_update().filter(prefix=prefix)
            token = tokens.first() if prefix.isalnum() else None
            if token is None:
                raise CommandError(f"no token {prefix}; `token list` lists them", returncode=2)
            if Token.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=Now()):
                self.record("revoke token", token)
        self.stderr.write(f"Revoked {token}")

    def record(self, action: str, token: Token) -> None:
        audit.record(user_name(), action, [f"token {token.pk}"], "manage.py token")


def check(name: str, scopes: list[str], expires_days: float | None, worker: str | None) -> None:
    """Raises CommandError for what no token can have."""
    if not scopes or set(scopes) - set(SCOPES):
        raise CommandError(f"--scopes takes some of {','.join(SCOPES)}", returncode=2)
    if not 0 < len(name) <= 100 or not name.isprintable():
        raise CommandError("give a name of 1 to 100 printable characters", returncode=2)
    if expires_days is not None and not 0 < expires_days <= 36_500:
        raise CommandError("--expires-days takes more than 0 and at most 36500", returncode=2)
    if worker is not None and "work" not in scopes:
        raise CommandError("--worker needs the scope work", returncode=2)
    if worker is not None and not (len(worker) <= 100 and re.fullmatch(LABEL, worker)):
        raise CommandError(f"{worker!r} cannot be a worker's name", returncode=2)
