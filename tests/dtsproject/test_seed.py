import pytest
from django.core.management import call_command
from rest_framework.exceptions import ValidationError

from dtsproject import stack_seeds
from jobs.api.submissions import job_spec
from jobs.models import Attempt, Job, Lease, Limit, Task, UniqueKey
from jobs.states import Outcome, Status
from scheduling.models import Schedule
from tests.helpers import shell, submit
from workers.models import State, Worker

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _short_backoff(settings):
    settings.DTS = {"BACKOFF_BASE_SECONDS": 0.05}


def test_plays_the_past_to_its_end_and_leaves_the_rest_to_real_workers(capsys):
    submit(shell("echo mine", requires=[stack_seeds.PAST_LABEL]))
    call_command("seed")

    past = Task.objects.filter(queue=stack_seeds.PAST_QUEUE)
    assert not past.live().exists()
    assert set(past.values_list("status", flat=True)) == {Status.DONE, Status.FAILED}
    outcomes = set(Attempt.objects.values_list("outcome", flat=True))
    assert outcomes == {o for fate in stack_seeds.FATES.values() for o in fate}
    assert {Outcome.LOST, Outcome.TIMED_OUT} <= outcomes
    for task in past:
        told = task.attempts.order_by("number").values_list("outcome", flat=True)
        assert tuple(told) == stack_seeds.FATES[task.name]
    assert Worker.objects.filter(state=State.GONE).count() == 3
    assert not Lease.objects.exists()

    # Played workers touch nothing but what was made for them.
    others = Task.objects.exclude(pk__in=past)
    assert not others.exclude(attempt=0).exists()
    assert {"gpu", "mem_mb>=16384"} in map(set, others.values_list("requires", flat=True))
    assert others.exclude(retry=None).exclude(deadline_at=None).count() == 1
    assert others.filter(concurrency_key=Limit.objects.get().key).count() == 6
    said = capsys.readouterr().out.count("\n")
    assert said == Job.objects.count() - 1 + Schedule.objects.count() + Limit.objects.count()


def test_no_client_can_give_players_a_task():
    with pytest.raises(ValidationError, match="queue"):
        job_spec(
            {"name": "x", "queue": stack_seeds.PAST_QUEUE, "tasks": [{"payload": {"cmd": "x"}}]}
        )


def test_can_be_run_again():
    call_command("seed")
    first = Task.objects.count()
    call_command("seed")
    assert Task.objects.count() == 2 * first
    assert Schedule.objects.count() == len(stack_seeds.schedules())
    assert UniqueKey.objects.get().job_id == Job.objects.filter(name="weather").latest("pk").pk
