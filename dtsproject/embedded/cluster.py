"""One embedded PostgreSQL: its start, its stop, and where it is reached."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import lifeline
from .account import EmbeddedError
from .folder import Folder, default_folder, digest

# For a developer's machine. Durability (fsync, full_page_writes) stays as PostgreSQL has it.
SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "log_checkpoints": "off",
}
# Crash recovery replays up to max_wal_size before the server answers.
START_SECONDS = 120
STOP_SECONDS = 60
READY_LINE = 7  # of postmaster.pid: "starting", "ready" or "stopping"


class Cluster:
    """A PostgreSQL in `data_dir` (default: `default_folder()`), reached by a unix socket alone.

    `settings` are PostgreSQL's own, over SETTINGS. Its methods raise EmbeddedError, with a message
    for people, for whatever goes wrong.
    """

    def __init__(self, data_dir: Path | None = None, **settings: str):
        self.folder = Folder(data_dir or default_folder())
        # /tmp itself, not TMPDIR: every process must name the same socket, in under 108 bytes.
        self.socket_dir = Path("/tmp") / f"dts-{digest(self.folder.data)}"  # noqa: S108
        self.settings = {**SETTINGS, "unix_socket_directories": str(self.socket_dir), **settings}
        self._pid_file = self.folder.data / "postmaster.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def url(self) -> str:
        """`postgresql://dts:<password>@/dts?host=<socket folder>`; makes the password if new."""
        password, host = (
            quote(part, safe="") for part in (self.folder.password(), str(self.socket_dir))
        )
        return f"postgresql://dts:{password}@/dts?host={host}"

    def ensure(self) -> None:
        """Make the data folder, the password and the database `dts` if they are not there."""
        with self.folder.locked():
            self.folder.prepare()

    def running(self) -> bool:
        """Whether the server accepts connections."""
        try:
            if self._pid_file.read_text().splitlines()[READY_LINE].strip() != "ready":
                return False
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)
                probe.connect(str(self.socket_dir / ".s.PGSQL.5432"))
        except BlockingIOError:  # its queue of new connections is full, so it lives
            return True
        except (OSError, IndexError):
            return False
        return True

    def start_child(self) -> subprocess.Popen[bytes] | None:
        """Start a server that ends with this process; return once it accepts connections.

        Returns None if it was running already: it then belongs to whoever started it.
        """
        if lifeline.kernel_can_tell():
            return self._start(preexec_fn=lifeline.signal_on_parent_exit(signal.SIGINT))
        process = self._start()
        if process:
            lifeline.watch(process.pid, self._pid_file, self.folder.account)
        return process

    def start_daemon(self) -> bool:
        """Start a server that stays; return once it accepts connections. False: it was running."""
        return self._start() is not None

    def stop(self) -> None:
        """End all sessions, shut down and wait for it; nothing if no server is running."""
        if not self.folder.path.exists():
            return
        with self.folder.locked():
            if pid := self._postmaster():
                os.kill(pid, signal.SIGINT)
                if not _until(lambda: self._postmaster() != pid, STOP_SECONDS):
                    raise EmbeddedError(f"PostgreSQL {pid} did not stop; see {self.folder.log}")
            if self._process:
                self._process.wait()
            if self.socket_dir.exists():
                self._make_socket_dir()
                shutil.rmtree(self.socket_dir)

    def _start(self, **options: Any) -> subprocess.Popen[bytes] | None:
        with self.folder.locked():
            # One that is just starting or stopping has to get there first.
            _until(lambda: self.running() or not self._postmaster(), START_SECONDS)
            if self.running():
                return None
            programs = self.folder.prepare()
            self._make_socket_dir()
            self._disown_recycled_pid()
            arguments = [part for pair in self.settings.items() for part in ("-c", "=".join(pair))]
            with self.folder.new_log() as log:
                self._process = subprocess.Popen(
                    [programs / "postgres", "-D", self.folder.data, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for us, who may still need the server
                    **self.folder.account.options(),
                    **options,
                )
            self._wait_until_ready(self._process)
            return self._process

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        ready = False
        try:
            _until(lambda: self.running() or process.poll() is not None, START_SECONDS)
            ready = self.running()
        finally:
            if not ready:
                process.send_signal(signal.SIGINT)
                process.wait()
        if not ready:
            lines = self.folder.log.read_text(errors="replace").splitlines()[-8:]
            raise EmbeddedError("\n  ".join(["PostgreSQL did not start. Its log ends:", *lines]))

    def _make_socket_dir(self) -> None:
        """Make the folder of the socket; refuse one that another account made under its name."""
        account = self.folder.account
        self.socket_dir.mkdir(mode=0o700, exist_ok=True)
        found = self.socket_dir.lstat()
        private = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o077
        if not private or found.st_uid not in (os.geteuid(), account.uid):
            raise EmbeddedError(f"{self.socket_dir} is not {account.name}'s alone: remove it")
        account.own(self.socket_dir)

    def _postmaster(self) -> int | None:
        """The pid of our server, also while it is still starting or stopping."""
        pid, command = self._named_in_pid_file()
        return pid if os.fsencode(self.folder.data) in command else None

    def _named_in_pid_file(self) -> tuple[int, bytes]:
        """The pid in postmaster.pid and the command line it has now, empty if there is none."""
        try:
            pid = int(self._pid_file.read_text().split()[0])
            if sys.platform == "linux":
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            else:
                command = subprocess.check_output(["/bin/ps", "-o", "command=", "-p", str(pid)])
        except (OSError, ValueError, IndexError, subprocess.CalledProcessError):
            return 0, b""
        return pid, command

    def _disown_recycled_pid(self) -> None:
        """Let PostgreSQL start though another program has the pid its crashed run left behind.

        It takes its parent's pid, ours, for stale. The file has to stay: by its other lines
        PostgreSQL finds sessions that outlived the crash, and refuses to start beside them.
        """
        _, command = self._named_in_pid_file()
        if not command or b"postgres" in command:  # for PostgreSQL itself to judge
            return
        handle = os.open(self._pid_file, os.O_RDWR | os.O_NOFOLLOW)
        with os.fdopen(handle, "r+") as file:
            _, rest = file.read().split("\n", 1)
            file.seek(0)
            file.write(f"{os.getpid()}\n{rest}")
            file.truncate()


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
