import pytest
from django.core.management import CommandError, call_command

from jobs.models import AuditEvent, Job
from scheduling.models import Schedule

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> None:
    call_command("schedule", *arguments)


def test_the_life_of_a_schedule(capsys):
    run("create", "nightly", "0 2 * * *", "./backup {date}", "--tz", "Europe/Berlin", "--queue",
        "ops", "--overlap", "queue", "--catch-up", "all", "--jitter-seconds", "5")  # fmt: skip
    made = Schedule.objects.get()
    assert (made.overlap, made.catch_up, made.jitter_seconds) == ("queue", "all", 5)
    assert made.template["queue"] == "ops"
    run("pause", "nightly")
    run("list")
    assert "nightly                  paused  0 2 * * * Europe/Berlin" in capsys.readouterr().out
    run("resume", "nightly")
    run("fire", "nightly")
    assert capsys.readouterr().out.strip() == str(Job.objects.get().pk)
    run("delete", "nightly")
    assert not Schedule.objects.exists()
    assert list(AuditEvent.objects.order_by("pk").values_list("action", flat=True)) == [
        "create", "pause", "resume", "fire", "delete",
    ]  # fmt: skip


def test_the_job_may_come_from_a_file(tmp_path):
    path = tmp_path / "job.json"
    path.write_text('{"name": "x {time}", "tasks": [{"payload": {"cmd": "true"}}]}')
    run("create", "hourly", "@hourly", "--file", str(path))
    assert Schedule.objects.get().template["name"] == "x {time}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "x", "99 * * * *", "true"], "#/cron: minute: '99'"),
        (
            ["create", "x", "@daily", "echo {nope}"],
            "#/template/tasks/0/payload/cmd: There is no par",
        ),
        (["create", "x", "@daily"], "either a command or --file"),
        (["create", "x", "@daily", "--file", "/nowhere"], "No such file"),
        (["create", "x", "@daily", "true", "--starts-at", "2030-01-01"], "#/starts_at: "),
        (["pause", "nobody"], "no schedule 'nobody'"),
    ],
)
def test_nonsense_exits_2_and_stores_nothing(arguments, said):
    with pytest.raises(CommandError, match=said) as refused:
        run(*arguments)
    assert refused.value.returncode == 2
    assert not Schedule.objects.exists()
    assert not AuditEvent.objects.exists()
