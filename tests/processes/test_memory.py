"""The loops load only what they use, however they were set up."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import submit, wait_until
from tests.processes.conftest import ROOT
from tests.processes.test_workers import finished

pytestmark = pytest.mark.django_db(transaction=True)

MOST_MB, MOST_GUARD_MB = 70, 15


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def guard_of(worker: subprocess.Popen) -> int:
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    return int(children[0])


def test_loops_leave_out_what_pages_need(fleet):
    tasks = submit(*["true"] * 200)
    loops = fleet.scheduler(), fleet.recovery(), fleet.worker("w1", "--slots", "2")

    wait_until(lambda: finished(tasks))

    for loop in loops:
        assert resident_mb(loop.pid) < MOST_MB, loop.args
    assert resident_mb(guard_of(loops[-1])) < MOST_GUARD_MB


@pytest.mark.parametrize("loop", ["run_scheduler", "run_recovery"])
def test_a_teams_app_may_need_what_pages_need(fleet, tmp_path, loop):
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "__init__.py").touch()
    (tmp_path / "team" / "models.py").write_text(
        "from django.contrib.sessions.models import Session\nprint('team is loaded')\n"
    )
    (tmp_path / "team_settings.py").write_text(
        "from dtsproject.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, 'team']\n"
    )
    where = ["--pythonpath", str(tmp_path), "--settings", "team_settings"]

    assert fleet.start(loop, "--once", *where).wait(30) == 0, fleet.logs()
    assert "team is loaded" in fleet.logs()


@pytest.mark.parametrize("wrong", [["--settings", "nope"], ["--settings"], ["--settings=nope.x"]])
def test_settings_that_are_not_there_are_refused_in_a_line(fleet, wrong):
    refused = subprocess.run(
        [sys.executable, "manage.py", "run_scheduler", *wrong],
        cwd=ROOT,
        env=fleet.environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
