"""The folder of a cluster: `data`, `password`, `server.log` and, if need be, `programs`."""

import fcntl
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from . import binaries
from .account import Account, EmbeddedError


def default_folder() -> Path:
    """DTS_DATA_DIR, or `.dts/postgres` in the project.

    Root's server runs as another account; where that one cannot enter the project, as in /root,
    the folder is one in /var/lib named after the project's path.
    """
    if chosen := os.environ.get("DTS_DATA_DIR"):
        return Path(chosen)
    project = Path(__file__).resolve().parents[2]
    folder = project / ".dts" / "postgres"
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if Account.of(folder / "data").reaches(existing):
        return folder
    return Path("/var/lib") / f"dts-{digest(project)}"


def digest(path: Path) -> str:
    """A short name for a path, the same in every process."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


class Folder:
    """What a cluster keeps on disk. As root its own part stays root's; `data` is the account's."""

    def __init__(self, path: Path):
        self.path = path.resolve()
        self.data = self.path / "data"
        self.log = self.path / "server.log"
        self.account = Account.of(self.data)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from starting, making or stopping this cluster meanwhile."""
        with self._explained():
            self._make()
            handle = os.open(self.path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)

    def password(self) -> str:
        """The password of the database role `dts`, made on first use."""
        path = self.path / "password"
        with self._explained():
            if not path.exists():
                self._make()
                # Written whole under another name, so that two first starts agree on one.
                draft = self.path / f"password.{os.getpid()}"
                draft.touch(mode=0o600)
                draft.write_text(secrets.token_urlsafe(32))
                self.account.own(draft)
                try:
                    os.link(draft, path)
                except FileExistsError:
                    pass
                finally:
                    draft.unlink()
            return path.read_text()

    def prepare(self) -> Path:
        """Make `data` if it is new. Return the folder of the programs, whose version fits it."""
        if not self.account.reaches(self.path):
            raise EmbeddedError(
                f"PostgreSQL runs as {self.account.name} here, who cannot enter {self.path}:"
                " set DTS_DATA_DIR to a folder outside private ones, such as /var/lib/dts"
            )
        programs = binaries.server_folder(self.account, self.path / "programs")
        major = binaries.version(programs).split(".")[0]
        if not self.data.exists():
            self._initialise(programs, int(major))
        made_by = (self.data / "PG_VERSION").read_text().strip()
        if made_by != major:
            raise EmbeddedError(
                f"{self.data} was made by PostgreSQL {made_by}, but {programs} is {major}."
                f" Dump it with {made_by}: DTS_PG_BIN=<its bin folder> manage.py db start,"
                " then db backup old.dump and db stop. Move the folder away, unset DTS_PG_BIN,"
                f" db start, and load it: {programs}/pg_restore -f - old.dump | manage.py db psql"
            )
        return programs

    def new_log(self) -> BinaryIO:
        """A log for one run of the server; that of the run before is kept beside it."""
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND
        log = os.fdopen(os.open(self.log, flags, 0o600), "wb")
        self.account.own(log.fileno())
        return log

    def _make(self) -> None:
        missing = [part for part in (self.path, *self.path.parents) if not part.exists()]
        for part in reversed(missing):
            part.mkdir(exist_ok=True)
            # Root's server has to pass through, to the `data` of its own account.
            part.chmod(0o711 if os.geteuid() == 0 else 0o700)

    def _initialise(self, programs: Path, major: int) -> None:
        self.password()
        # Under another name until it is whole: a killed initdb leaves nothing to trip over.
        draft = self.path / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self.account.own(draft)
        locale = ["--locale=C.UTF-8" if sys.platform == "linux" else "--locale=C"]
        if major >= 17:
            locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        secured = ["--auth=scram-sha-256", f"--pwfile={self.path / 'password'}"]
        named = ["--username=dts", "--encoding=UTF8", "--data-checksums"]
        self._run([programs / "initdb", "-D", str(draft), *named, *secured, *locale])
        single = ["--single", "-c", "exit_on_error=on", "-D", str(draft), "postgres"]
        self._run([programs / "postgres", *single], "CREATE DATABASE dts\n")
        draft.rename(self.data)

    def _run(self, command: list[str | Path], given: str = "") -> None:
        done = subprocess.run(
            command,
            input=given,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **self.account.options(),
        )
        if done.returncode:
            raise EmbeddedError(f"{command[0]} failed: {done.stdout.strip()[-2000:]}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EmbeddedError(
                f"the embedded PostgreSQL cannot use {self.path} ({error}): set DTS_DATA_DIR"
                " to a folder of your own, or DATABASE_URL to a server"
            ) from error
