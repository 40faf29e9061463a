"""`manage.py db start|stop|status|psql|backup`: the database of this installation, for people."""

import os
import subprocess
from argparse import REMAINDER
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dtsproject.embedded import Cluster, EmbeddedError, program

NOT_RUNNING = 3  # as `pg_ctl status` and init scripts say it


class Command(BaseCommand):
    help = "Start, stop, inspect and back up the database."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("start", help="start the embedded PostgreSQL; it stays until stopped")
        verbs.add_parser("stop", help="stop the embedded PostgreSQL")
        verbs.add_parser(
            "status", help=f"say where it is; exit {NOT_RUNNING} if it does not answer"
        )
        psql = verbs.add_parser(
            "psql", help="open PostgreSQL's own client", add_help=False, prefix_chars="\0"
        )
        psql.add_argument("arguments", nargs=REMAINDER, help="passed on, such as: -c 'select 1'")
        backup = verbs.add_parser("backup", help="write a dump that pg_restore reads")
        backup.add_argument("file", nargs="?", type=Path, help="default: dts-<time>.dump")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        try:
            if verb in ("start", "stop") and os.environ.get("DATABASE_URL"):
                raise EmbeddedError(f"DATABASE_URL names the database: {verb} it where it runs")
            getattr(self, verb)(options)
        except EmbeddedError as error:
            raise CommandError(str(error), returncode=2) from error

    def start(self, options: dict[str, Any]) -> None:
        cluster = Cluster()
        answer = "PostgreSQL started" if cluster.start_daemon() else "PostgreSQL is running"
        self.stdout.write(f"{answer}, data in {cluster.folder.data}")

    def stop(self, options: dict[str, Any]) -> None:
        Cluster().stop()
        self.stdout.write("PostgreSQL is stopped")

    def status(self, options: dict[str, Any]) -> None:
        try:
            with psycopg.connect(settings.DATABASE_URL, connect_timeout=5) as connection:
                info = connection.info
                where = f"database {info.dbname} at {info.host} as {info.user}"
                self.stdout.write(f"PostgreSQL {_version(info.server_version)}, {where}")
        except psycopg.OperationalError as error:
            reason = " ".join(str(error).split())
            raise CommandError(f"no answer: {reason}", returncode=NOT_RUNNING) from error

    def psql(self, options: dict[str, Any]) -> None:
        psql, (connection, environment) = program("psql"), _connection()
        self.stdout.flush()
        os.execve(psql, [psql, *connection, *options["arguments"]], environment)  # noqa: S606

    def backup(self, options: dict[str, Any]) -> None:
        target = options["file"] or Path(f"dts-{timezone.now():%Y%m%dT%H%M%SZ}.dump")
        if target.exists():
            raise EmbeddedError(f"{target} exists already: name another file")
        try:
            _dump(target.absolute())
        except OSError as error:
            raise EmbeddedError(f"cannot write {target}: {error}") from error
        size = target.stat().st_size / 1_000_000
        self.stdout.write(f"wrote {target.absolute()} ({size:.1f} MB); pg_restore reads it")


def _dump(target: Path) -> None:
    """Dump the database into a file nobody else can read, which gets its name when whole."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    connection, environment = _connection()
    command = [program("pg_dump"), "--format=custom", *connection]
    try:
        with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            done = subprocess.run(
                command, env=environment, stdout=file, stderr=subprocess.PIPE, check=False
            )
            os.fsync(file.fileno())
        if done.returncode:
            raise EmbeddedError(done.stderr.decode(errors="replace").strip())
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)


def _connection() -> tuple[list[str], dict[str, str]]:
    """Arguments and environment for a client; the password is not for the process list."""
    parts = {name: str(part) for name, part in conninfo_to_dict(settings.DATABASE_URL).items()}
    password = parts.pop("password", None)
    secret = {"PGPASSWORD": password} if password else {}
    return ["-d", make_conninfo(**parts)], {**os.environ, **secret}


def _version(number: int) -> str:
    return f"{number // 10_000}.{number % 10_000}"
