"""`manage.py cron`, as a shell runs it: without a database."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command

from tests.processes.conftest import ROOT

FROM = ["--from", "2026-03-28T12:00:00+01:00"]


def ask(monkeypatch, *questions: object) -> list[dict]:
    lines = "".join(f"{q if isinstance(q, str) else json.dumps(q)}\n" for q in questions)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines.encode())))
    out = io.StringIO()
    call_command("cron", "-", stdout=out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_it_prints_the_next_times(capsys):
    call_command("cron", "30 2 * * *", "--tz", "Europe/Berlin", *FROM, "--count", "2")
    assert capsys.readouterr().out.splitlines() == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    call_command("cron", "0 12 * * *", "--tz", "Europe/Berlin", *FROM, "--inclusive", "--json",
                 "--count", "1")  # fmt: skip
    assert json.loads(capsys.readouterr().out) == {"times": ["2026-03-28T12:00:00+01:00"]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["61 * * * *"], "minute: '61' is not valid; it takes 0-59"),
        (["* * * * *", "--tz", "Mars/Olympus"], "There is no time zone 'Mars/Olympus'"),
        (["* * * * *", "--from", "2026-03-28T12:00:00"], "from: give a time with its offset"),
        (["* * * * *", "--count", "0"], "count: give a whole number from 1"),
    ],
)
def test_nonsense_is_refused_by_name(arguments, said):
    with pytest.raises(CommandError, match=said) as refused:
        call_command("cron", *arguments)
    assert refused.value.returncode == 2


def test_a_line_of_json_is_answered_by_one(monkeypatch):
    berlin = {"expr": "0 * * * *", "tz": "Europe/Berlin", "from": "2026-10-25T00:00:00Z"}
    found = ask(
        monkeypatch,
        {**berlin, "count": 3, "inclusive": True},
        {"expr": "* * * *"},
        "nonsense",
        "[]",
        {"expr": "* * * * *", "form": 1},
        {"expr": 5},
        {"expr": "* * * * *", "count": True},
        {"expr": "* * * * *", "from": "2026-10-25 00:00"},
        {**berlin, "expr": "1 1 */100 * MON#4"},
    )
    assert found[0] == {
        "times": [
            "2026-10-25T02:00:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T03:00:00+01:00",
        ]
    }
    assert [answer.get("error", "").split()[0:1] for answer in found[1:8]] == [
        ["expression:"], ["The"], ["give"], ["form:"], ["expr:"], ["count:"], ["from:"],
    ]  # fmt: skip
    assert found[8] == {"times": []}


def test_a_process_needs_no_database(tmp_path):
    """Its address leads nowhere; the exit status and one line on standard error are the answer."""

    def run(*arguments: str, **more):
        return subprocess.run(
            [sys.executable, "manage.py", "cron", *arguments],
            cwd=ROOT,
            env={
                "PATH": "/usr/bin:/bin",
                "DTS_LOCAL": "1",
                "DTS_STATE_DIR": str(tmp_path),
                "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
            },
            capture_output=True,
            text=True,
            **more,
        )

    done = run("* 99 * * *")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["CommandError: hour: '99' is not valid; it takes 0-23"], (
        done.stderr
    )
    done = run("-", input='{"expr": "x"}\n{"expr": "@daily", "count": 1}\n')
    assert done.returncode == 0, done.stderr
    assert [list(json.loads(line)) for line in done.stdout.splitlines()] == [["error"], ["times"]]
