"""`manage.py submit` as a person runs it, beside a real scheduler and worker."""

import json
import signal
import subprocess
import sys

import pytest

from jobs.models import IdempotencyKey, Job, Task
from tests.helpers import keys_locked, wait_until
from tests.processes.conftest import ROOT

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def submit(fleet):
    def run(*arguments: str, **options) -> subprocess.CompletedProcess:
        command = [sys.executable, "-W", "ignore", "manage.py", "submit", *arguments]
        options |= {"env": fleet.environment, "cwd": ROOT, "text": True, "check": False}
        return subprocess.run(command, capture_output=True, **options)

    return run


@pytest.fixture
def _served(fleet):
    fleet.scheduler()
    fleet.worker("w1", "--slots", "4")


def test_stores_what_the_options_say_and_prints_the_id(submit):
    options = ["--name", "n", "--queue", "q", "--priority", "90", "--requires", "gpu,eu"]
    answer = submit("echo hi", *options, "--timeout", "1.5", "--max-retries", "2")
    job, task = Job.objects.get(), Task.objects.get()
    assert (answer.returncode, answer.stdout) == (0, f"{job.pk}\n")
    assert (job.name, job.queue, task.payload, task.priority) == ("n", "q", {"cmd": "echo hi"}, 90)
    assert (task.timeout_seconds, task.max_retries) == (1.5, 2)
    assert set(task.requires) == {"gpu", "eu"}


@pytest.mark.usefixtures("_served")
def test_waits_and_shows_the_output(submit):
    answer = submit("echo hi", "--wait")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.endswith("\nhi\n")


@pytest.mark.usefixtures("_served")
def test_a_file_of_many_tasks_shows_only_what_failed(submit):
    tasks = [{"payload": {"cmd": f"echo fine-{n}"}} for n in range(30)]
    tasks.append({"payload": {"cmd": "echo oops >&2; exit 3"}})
    answer = submit("--file", "-", "--wait", input=json.dumps({"name": "many", "tasks": tasks}))
    assert answer.returncode == 1
    assert "30 of 31 tasks are done" in answer.stdout
    assert "oops" in answer.stdout
    assert "fine-" not in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x", "--priority", "500"], "#/tasks/0/priority: "),
        ([" "], "#/tasks/0/payload/cmd: "),
        (["x", "--timeout", "0"], "#/tasks/0/timeout_seconds: "),
        (["--file", "/no/such/file"], "/no/such/file: No such file"),
        ([], "a command or --file"),
        (["x", "--file", "y"], "a command or --file"),
        (["--file", "-", "--priority", "3"], "priority in the file"),
        (["x", "--priority", "high"], "--priority: invalid int value"),
    ],
)
def test_refuses_in_a_line_and_stores_nothing(submit, arguments, said):
    answer = submit(*arguments, input="{}")
    assert answer.returncode == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not Job.objects.exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "x", "tasks": []}', '{"name": "\\u0000"}'])
def test_refuses_a_file_that_is_no_job(submit, text):
    answer = submit("--file", "-", input=text)
    assert answer.returncode == 2
    assert answer.stderr.startswith("CommandError: #")
    assert not Job.objects.exists()


@pytest.fixture
def _interruptible():
    """A shell has what it starts in the background ignore SIGINT, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_ends_the_watching_alone(fleet):
    process = fleet.start("submit", "sleep 1000", "--wait")
    wait_until(lambda: any(line.isdigit() for line in fleet.logs().splitlines()))
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert f"/api/v1/jobs/{Job.objects.get().pk}/tasks" in fleet.logs()
    assert Task.objects.live().exists()


def test_a_kill_before_the_commit_leaves_neither_job_nor_key(fleet, submit):
    with keys_locked() as waiting:
        process = fleet.start("submit", "true", "--idempotency-key", "k1")
        wait_until(waiting)
        process.kill()
        process.wait()
    assert not Job.objects.exists()
    assert not IdempotencyKey.objects.exists()

    first, again = (submit("true", "--idempotency-key", "k1") for _ in range(2))

    assert first.stdout == again.stdout == f"{Job.objects.get().pk}\n"
