"""`manage.py chaos` as a person runs it, for a short while."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dtsproject.chaos.checks import check
from dtsproject.chaos.history import History

ROOT = Path(__file__).parent.parent.parent
SECONDS, SEED = 20, 3


def chaos(*arguments: str, seconds: float = 400) -> subprocess.CompletedProcess:
    # Neither the test run's database nor its settings: it starts its own.
    mine = ("DATABASE_URL", "DTS_TEST_RUN", "DJANGO_SETTINGS_MODULE")
    return subprocess.run(
        [sys.executable, "manage.py", "chaos", *arguments],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k not in mine},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def test_nothing_is_lost_or_doubled_in_a_short_run(tmp_path):
    history, figures = tmp_path / "history.ndjson", tmp_path / "figures.json"
    run = chaos(
        *("--seconds", str(SECONDS), "--seed", str(SEED)),
        *("--history", str(history), "--json", str(figures)),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found, happened = json.loads(figures.read_text()), History.read(history)
    assert found["breaches"] == []
    assert check(happened) == []
    assert sum(kind["injected"] for kind in found["faults"].values()) >= 10
    assert found["jobs"]["acknowledged"] > 5
    assert found["tasks"]["done"] > 20
    assert found["worst_pause_seconds"] > 0
    assert found["edges"] > 20
    assert len(happened.of("schedule")) == len(happened.of("scheduled")) > 5
    ended = [life for life in happened.of("lived") if life["ended"]]
    assert len(ended) >= found["tasks"]["done"]
    assert "worker killed" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--seconds", "1"), "from 5 to"),
        (("--seconds", "a"), "from 5 to"),
        (("--seed", "-1"), "from 0 to"),
        (("--json", "/nowhere/x.json"), "/nowhere is no folder"),
        (("--loud",), "--loud"),
    ],
)
def test_bad_options_are_refused_in_one_line(arguments, reason):
    run = chaos(*arguments, seconds=60)
    assert run.returncode == 2
    assert reason in run.stderr
    assert len(run.stderr.splitlines()) == 1
