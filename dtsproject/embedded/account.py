"""The account PostgreSQL runs under. It refuses to run as root, so root hands it to another."""

import os
import pwd
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

# Not ours: PG* variables would change the server, and another account could read our secrets.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot do what was asked; the message says how to mend it."""


class Account(NamedTuple):
    """Whom the server runs as and whom its files belong to."""

    name: str
    uid: int
    gid: int

    @classmethod
    def of(cls, data: Path) -> "Account":
        """Ourselves; for root the owner of the folder `data`, or `nobody` while there is none."""
        uid = os.geteuid()
        try:
            if uid == 0:
                uid = data.stat().st_uid if data.exists() else 0
            entry = pwd.getpwuid(uid) if uid else pwd.getpwnam("nobody")
        except KeyError:
            raise EmbeddedError(
                f"no account in /etc/passwd to run PostgreSQL as ({uid or 'nobody'}):"
                " add it, or set DATABASE_URL to a server"
            ) from None
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    def options(self) -> dict[str, Any]:
        """Arguments for `subprocess` that run a program as this account."""
        changed = {"user": self.uid, "group": self.gid, "extra_groups": []}
        return {
            "cwd": "/",
            "umask": 0o077,
            "env": ENVIRONMENT,
            **(changed if os.geteuid() == 0 else {}),
        }

    def can_run(self, *command: str) -> bool:
        """Whether the command, run as this account, starts and exits with 0."""
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            return subprocess.run(command, check=False, **quiet, **self.options()).returncode == 0
        except OSError:
            return False

    def reaches(self, folder: Path) -> bool:
        """Whether this account may enter the folder; a trial, since modes do not tell of ACLs."""
        return os.geteuid() != 0 or self.can_run("/bin/sh", "-c", 'cd "$1"', "sh", str(folder))

    def own(self, target: Path | int) -> None:
        """Give a file or folder that root has just made to this account."""
        if os.geteuid() == 0:
            os.chown(target, self.uid, self.gid)
