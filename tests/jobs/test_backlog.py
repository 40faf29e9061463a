"""Work past the backlog that is allowed is refused at both doors, and nothing of it stored."""

from datetime import UTC, datetime

import pytest
from django.core.management import CommandError, call_command

from jobs import backlog as module
from jobs.backlog import Backlog, Overloaded
from jobs.models import Deferred, Job
from tests.api import JOB, Client, problem
from tests.helpers import shell, submit

pytestmark = pytest.mark.django_db


@pytest.fixture
def backlog(settings, monkeypatch):
    """A process's own, just started, in which three tasks may wait."""
    settings.DTS = {**settings.DTS, "MAX_BACKLOG": 3}
    fresh = Backlog()
    monkeypatch.setattr("jobs.intake.backlog", fresh)
    return fresh


def test_the_api_refuses_with_a_time_to_come_back(backlog):
    submit(*["true"] * 3)

    response = Client("submit").send("/api/v1/jobs", JOB)

    assert "DTS_MAX_BACKLOG" in problem(response, 429, "overloaded")["detail"]
    assert int(response["Retry-After"]) > 0
    assert Job.objects.count() == 1


def test_the_command_refuses_in_one_line(backlog):
    submit(*["true"] * 3)

    with pytest.raises(CommandError, match="3 tasks or more wait") as refused:
        call_command("submit", "true")

    assert refused.value.returncode == 2
    assert Job.objects.count() == 1


def test_deferred_work_counts(backlog):
    submit("true", shell("true", run_after=datetime(2999, 1, 1, tzinfo=UTC)), "true")
    assert Deferred.objects.count() == 1

    with pytest.raises(Overloaded):
        backlog.admit(1)


def test_what_is_admitted_counts_at_once_though_the_table_is_not_asked_again(
    backlog, django_assert_num_queries
):
    with django_assert_num_queries(1):
        backlog.admit(2)
        backlog.admit(2)
        with pytest.raises(Overloaded):
            backlog.admit(1)


def test_it_takes_work_again_once_less_waits(backlog):
    submit(*["true"] * 3)
    with pytest.raises(Overloaded):
        backlog.admit(1)
    Job.objects.all().delete()
    module.time.sleep(module.AT_LEAST_SECONDS)

    backlog.admit(1)
