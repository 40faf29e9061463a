"""Only the database's clock judges: no process's wall clock can lapse a lease or make work due."""

import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from jobs.models import Attempt
from tests.helpers import shell, submit, wait_until
from tests.processes.test_workers import finished, fresh
from workers.models import State, Worker

pytestmark = pytest.mark.django_db(transaction=True)

# Python imports a module of this name at its start, before anything can take hold of the clock.
SITECUSTOMIZE = """
import datetime, os, time
skew, true_time = float(os.environ["SKEW_SECONDS"]), time.time
time.time = lambda: true_time() + skew
true_datetime = datetime.datetime
class Skewed(true_datetime):
    @classmethod
    def now(cls, tz=None):
        return true_datetime.now(tz) + datetime.timedelta(seconds=skew)
    @classmethod
    def utcnow(cls):
        return true_datetime.utcnow() + datetime.timedelta(seconds=skew)
datetime.datetime = Skewed
"""
DAY = 86_400


@pytest.fixture
def skewed(tmp_path):
    """The environment of a process whose wall clock is wrong by so many seconds."""
    folder = tmp_path / "skew"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    paths = [str(folder), *[path for path in sys.path if Path(path).is_dir()]]
    return lambda seconds: {"PYTHONPATH": ":".join(paths), "SKEW_SECONDS": str(seconds)}


@pytest.mark.parametrize("sign", [1, -1])
def test_wrong_clocks_lapse_nothing_and_start_nothing_early(fleet, skewed, sign):
    due = timezone.now() + timedelta(seconds=3)
    tasks = now, later = submit(
        shell("sleep 6; date +%s", timeout_seconds=60), shell("true", run_after=due)
    )
    fleet.scheduler(**skewed(sign * 10 * DAY))
    fleet.start("run_recovery", **skewed(sign * 10 * DAY))
    fleet.start("run_worker", "--name", "w1", "--slots", "2", **skewed(-sign * 10 * DAY))

    wait_until(lambda: finished(tasks), 40)

    assert list(Attempt.objects.values_list("outcome", flat=True)) == ["done", "done"]
    assert fresh(later).started_at >= due
    assert abs((fresh(now).completed_at - timezone.now()).total_seconds()) < DAY
    assert Worker.objects.get().state == State.ONLINE
