"""`manage.py stack` and `demo` as a person runs them: on a database of their own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest

from dtsproject.embedded import Cluster
from dtsproject.stack_demo import in_order
from tests.helpers import wait_until

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 90


class Machine:
    """A folder for all state, a free port, and what runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "stack.log"
        self.cluster = Cluster(folder / "postgres")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        mine = {
            "DTS_STATE_DIR": str(folder),
            "DTS_DATA_DIR": str(folder / "postgres"),
            "DTS_DRAIN_SECONDS": "3600",
            "DJANGO_SETTINGS_MODULE": "dtsproject.settings",
            "PYTHONWARNINGS": "ignore",
            "ORCH_PORT": str(self.port),
        }
        self.environment = {**os.environ, **mine}
        for name in ("DATABASE_URL", "DTS_LOCAL"):
            self.environment.pop(name, None)

    def start(self, *arguments: str) -> subprocess.Popen:
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "manage.py", "stack", "--slots", "2", *arguments],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "manage.py", *arguments]
        options = {"cwd": ROOT, "env": self.environment, "timeout": START_SECONDS}
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    def query(self, statement: str) -> str:
        return self.run("db", "psql", "-Atc", statement).stdout.strip()

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2):
                return True
        except OSError:
            return False

    def wait_until_ready(self) -> None:
        wait_until(self.ready, START_SECONDS)

    def processes(self, word: str = "") -> list[int]:
        """Living processes of this machine whose command line has the word."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                command = (path / "cmdline").read_bytes()
                ours = str(self.folder).encode() in command + (path / "environ").read_bytes()
                dead = (path / "stat").read_text().rpartition(") ")[2][0] in "ZX"
            except OSError:
                continue
            if ours and not dead and word.encode() in command:
                found.append(int(path.name))
        return found


@pytest.fixture(scope="module")
def folder():
    path = Path(tempfile.mkdtemp(prefix="dts-stack-"))
    path.chmod(0o711)  # root's database runs under another account
    yield path
    Cluster(path / "postgres").stop()
    shutil.rmtree(path)


@pytest.fixture
def machine(folder):
    made = Machine(folder)
    yield made
    for pid in [*made.processes("manage.py"), *made.processes("gunicorn")]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not made.processes("manage.py"))
    print(made.log.read_text() if made.log.exists() else "")


def test_a_taken_port_is_said_before_anything_starts(machine):
    before = machine.cluster.folder.data.exists()
    with socket.create_server(("127.0.0.1", machine.port)):
        answer = machine.run("stack")
        demo = machine.run("demo", "--once")
    for refused in (answer, demo):
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert str(machine.port) in refused.stderr
    assert machine.cluster.folder.data.exists() == before


def test_the_demo_runs_high_before_low_and_leaves_nothing(machine):
    answer = machine.run("demo", "--once")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    shown = [line for line in answer.stdout.splitlines() if "done" in line and "│" in line]
    assert ["HIGH" in line for line in shown] == [True, False]
    assert f"http://127.0.0.1:{machine.port}/admin/" in answer.stdout
    assert machine.processes() == []
    assert not machine.cluster.socket_dir.exists()


def test_what_dies_is_started_again(machine):
    stack = machine.start("--workers", "1")
    machine.wait_until_ready()
    postgres = int((machine.cluster.folder.data / "postmaster.pid").read_text().split()[0])
    schedulers = machine.processes("run_scheduler")
    victims = [*machine.processes("gunicorn"), *schedulers, *machine.processes("run_worker")]
    for pid in [*victims, postgres]:
        os.kill(pid, signal.SIGKILL)

    wait_until(machine.cluster.running, START_SECONDS)
    machine.wait_until_ready()
    answer = machine.run("submit", "echo again", "--wait")

    assert (answer.returncode, "again\n" in answer.stdout) == (0, True), answer.stderr
    assert not set(schedulers) & set(machine.processes("run_scheduler"))
    stack.terminate()
    assert stack.wait(START_SECONDS) == 0
    assert machine.processes() == []
    log = machine.log.read_text()
    assert log.index("draining") < log.index("Handling signal: term")


def test_sigkill_takes_everything_with_it(machine):
    stack = machine.start("--workers", "1")
    machine.wait_until_ready()
    pid_file = machine.folder / "pid"
    machine.run("submit", f"echo $$ > {pid_file}; exec sleep 1000")
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip())
    task = Path("/proc") / pid_file.read_text().strip()

    stack.kill()
    stack.wait()

    wait_until(lambda: machine.processes() == [] and not task.exists(), START_SECONDS)


def test_a_second_signal_gives_running_tasks_back(machine):
    """The database was there before, so it is there afterwards."""
    machine.cluster.start_daemon()
    stack = machine.start("--workers", "1")
    machine.wait_until_ready()
    machine.run("submit", "sleep 1000")
    status = "SELECT status FROM tasks ORDER BY id DESC LIMIT 1"
    wait_until(lambda: machine.query(status) == "in_progress", START_SECONDS)

    stack.send_signal(signal.SIGINT)
    wait_until(lambda: "draining" in machine.log.read_text())
    assert stack.poll() is None
    stack.send_signal(signal.SIGINT)

    assert stack.wait(START_SECONDS) == 0
    assert machine.query(status) == "queued"
    assert machine.cluster.running()
    assert machine.processes("manage.py") == []
    machine.cluster.stop()


def task(output: str, started_at: str, status: str = "done") -> dict:
    return {"result_text": output, "started_at": started_at, "status": status}


@pytest.mark.parametrize(
    ("tasks", "good"),
    [
        ([task("HIGH\n", "10:00:01"), task("low\n", "10:00:02")], True),
        ([task("low\n", "10:00:01"), task("HIGH\n", "10:00:02")], False),
        ([task("HIGH\n", "10:00:01"), task("low\n", "10:00:01")], False),
        ([task("HIGH\n", "10:00:01"), task("low\n", "10:00:02", "failed")], False),
        ([task("HIGH\n", "10:00:01")], False),
    ],
)
def test_the_demo_is_good_only_if_high_started_first_and_all_is_done(tasks, good):
    assert in_order(tasks) is good
