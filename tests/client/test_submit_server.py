"""`manage.py submit --server`, as on a machine that has no database and knows of none."""

import json
import os
import signal
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command

from dtsproject.chaos.fleet import free_port
from tests.chaos.installation import ROOT
from tests.helpers import wait_until

SUBMIT = [sys.executable, "manage.py", "submit"]


@pytest.fixture
def environment(tmp_path):
    """No DATABASE_URL, and a state folder of its own."""
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**known, "DTS_STATE_DIR": str(tmp_path), "PYTHONWARNINGS": "ignore"}


def test_submits_by_options_with_a_token_and_starts_no_database(
    environment, url, token, client, tmp_path
):
    (tmp_path / "token").write_text(f"{token}\n")
    options = ["--name", "n", "--queue", "far", "--priority", "90", "--timeout", "1.5"]
    keyed = ["--idempotency-key", "k-server", "--token-file", str(tmp_path / "token")]
    command = [*SUBMIT, "echo hi", "--server", url, *options, *keyed]
    how = {"cwd": ROOT, "env": environment, "text": True, "capture_output": True}

    first, again = (subprocess.run(command, check=False, **how) for _ in range(2))

    assert (first.returncode, first.stdout) == (0, again.stdout), first.stderr
    job = client.job(int(first.stdout))
    (task,) = client.tasks(job)
    assert (job["name"], job["queue"], job["submitted_by"]) == ("n", "far", "ci")
    assert (task["payload"], task["priority"]) == ({"cmd": "echo hi"}, 90)
    assert task["timeout_seconds"] == 1.5
    assert not [*tmp_path.rglob("postmaster.pid"), *tmp_path.rglob("PG_VERSION")]


def test_waits_and_shows_the_same_as_beside_the_database(dts, url, tmp_path, capsys):
    tasks = [{"payload": {"cmd": f"echo fine-{n}"}} for n in range(30)]
    tasks.append({"payload": {"cmd": "echo oops >&2; exit 3"}})
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"name": "many", "tasks": tasks}))

    with pytest.raises(CommandError, match="1 of 31 tasks did not end well") as failed:
        call_command("submit", "--file", job, "--wait", "--server", url)
    there = capsys.readouterr().out
    how = {"cwd": ROOT, "env": dts.environment, "text": True, "capture_output": True}
    here = subprocess.run([*SUBMIT, "--file", job, "--wait"], check=False, **how)

    assert failed.value.returncode == here.returncode == 1
    assert "30 of 31 tasks are done" in there
    assert "oops" in there
    assert shape(there) == shape(here.stdout)


def test_a_unique_key_is_joined_or_refused(dts, url, capsys):
    given = ["true", "--requires", "nobody", "--unique", "far"]
    call_command("submit", *given, "--server", url)
    first = capsys.readouterr().out
    with pytest.raises(CommandError, match="holds the unique key far") as refused:
        call_command("submit", *given, "--server", url)
    assert refused.value.returncode == 2
    call_command("submit", *given, "--on-duplicate", "join", "--server", url)
    assert capsys.readouterr().out == first
    with pytest.raises(CommandError, match="--on-duplicate goes with --unique"):
        call_command("submit", "true", "--on-duplicate", "join", "--server", url)


def shape(said: str) -> list[str]:
    """Without ids and times."""
    lines = said.splitlines()
    return ["".join("#" if c.isdigit() else c for c in line).split(" in ")[0] for line in lines]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x", "--priority", "500"], "^#/tasks/0/priority: "),
        (["x", "--token-file", "/no/such/file"], "^/no/such/file: No such file"),
        (["--file", "/dev/null"], "^#: The body is not JSON"),
        (["x", "--server", "nonsense"], "'nonsense' is no URL"),
        (
            ["x", "--server", f"http://127.0.0.1:{free_port()}"],
            r"^cannot reach the server: 127\.0\.0\.1: ",
        ),
    ],
)
def test_refuses_in_a_line(url, monkeypatch, arguments, said):
    monkeypatch.setattr("jobs.management.commands.submit.PATIENCE_SECONDS", 0.2)
    with pytest.raises(CommandError, match=said) as refused:
        call_command("submit", "--server", url, *arguments)
    assert refused.value.returncode == 2


def test_what_is_no_job_is_for_the_server_to_say(url, tmp_path):
    (tmp_path / "job.json").write_text("[]")
    with pytest.raises(CommandError, match=r"^#: ") as refused:
        call_command("submit", "--server", url, "--file", tmp_path / "job.json")
    assert refused.value.returncode == 2


def test_tokens_come_from_the_environment_too_and_go_to_servers_alone(url, settings):
    settings.TOKEN = "dts_x"
    with pytest.raises(CommandError, match=r"^The token is unknown, expired or revoked\.$"):
        call_command("submit", "x", "--server", url)
    with pytest.raises(CommandError, match=r"goes with --server"):
        call_command("submit", "x", "--token-file", "f")


def test_an_interrupt_says_where_to_look(environment, url, client):
    command = [*SUBMIT, "sleep 60", "--wait", "--server", url]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # or children ignore it
    process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
    signal.signal(signal.SIGINT, before)
    job_id = int(process.stdout.readline())
    wait_until(lambda: client.job(job_id)["state"] == "in_progress")

    process.send_signal(signal.SIGINT)

    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"look again: curl {url}/api/v1/jobs/{job_id}/tasks" in said
    client.cancel_job(job_id)
