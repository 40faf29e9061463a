import getpass
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from dtsproject.command import Command as BaseCommand
from jobs import audit
from jobs.models import Token
from jobs.models.access import SCOPES


class Command(BaseCommand):
    help = "Makes, lists and revokes the tokens that programs use the API with."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a token and print it, this once")
        create.add_argument("name", help="what or who uses it")
        create.add_argument("--scopes", default="read", help=f"some of {','.join(SCOPES)}")
        create.add_argument("--expires-days", type=float, help="default: never")
        verbs.add_parser("list", help="list tokens, never their secrets")
        revoke = verbs.add_parser("revoke", help="refuse a token from now on")
        revoke.add_argument("prefix", help="the eight characters after dts_, or the token")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        match verb:
            case "create":
                self.create(options["name"], options["scopes"], options["expires_days"])
            case "list":
                self.list()
            case "revoke":
                self.revoke(options["prefix"])

    def create(self, name: str, scopes: str, expires_days: float | None) -> None:
        wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
        if not wanted or set(wanted) - set(SCOPES):
            raise CommandError(f"--scopes takes some of {','.join(SCOPES)}", returncode=2)
        if not 0 < len(name) <= 100 or not name.isprintable():
            raise CommandError("give a name of 1 to 100 printable characters", returncode=2)
        if expires_days is not None and not 0 < expires_days <= 36_500:
            raise CommandError("--expires-days takes more than 0 and at most 36500", returncode=2)
        expires_at = timezone.now() + timedelta(days=expires_days) if expires_days else None
        with transaction.atomic():
            token, text = Token.issue(name, wanted, expires_at)
            self.record("create token", token)
        self.stdout.write(text)
        self.stderr.write(f"Token {name} ({','.join(wanted)}); it cannot be shown again.")

    def list(self) -> None:
        for token in Token.objects.order_by("pk"):
            state = self.state_of(token)
            used = f"{token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "never"
            scopes = ",".join(token.scopes)
            self.stdout.write(f"{token.prefix}  {state:7}  used {used:16}  {scopes}  {token.name}")

    def state_of(self, token: Token) -> str:
        if token.revoked_at:
            return "revoked"
        return "expired" if token.expires_at and token.expires_at <= timezone.now() else "valid"

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
        audit.record(getpass.getuser(), action, [f"token {token.pk}"], "manage.py token")
