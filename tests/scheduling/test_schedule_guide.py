"""The examples of docs/guide.md and docs/cron.md, as they stand there."""

import re
import shlex

import pytest
from django.core.management import CommandError, call_command

from scheduling.firing import make_due
from scheduling.models import Firing, Schedule
from tests.api import Client
from tests.processes.conftest import ROOT

pytestmark = pytest.mark.django_db


def blocks(name: str, section: str) -> list[str]:
    text = (ROOT / "docs" / name).read_text().partition(f"\n## {section}\n")[2]
    return re.findall(r"```\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)


def test_the_guides_schedules_are_made_and_fire(capsys):
    commands, curl = blocks("guide.md", "Schedules")
    for line in commands.splitlines():
        call_command(*shlex.split(line.removeprefix("manage.py ")))
    assert "nightly" in capsys.readouterr().out
    (body,) = [word for word in shlex.split(curl) if word.lstrip().startswith("{")]
    assert Client("submit").send("/api/v1/schedules", body.encode()).status_code == 201

    Schedule.objects.update(next_run_at="2026-01-02T03:30Z", catch_up="one")
    assert make_due() == 2
    assert set(Firing.objects.values_list("outcome", flat=True)) == {"fired"}


def test_what_the_cron_page_shows_is_what_the_command_says(capsys):
    text = (ROOT / "docs" / "cron.md").read_text()
    shown = re.search(r"```\n(.*?)```", text, re.DOTALL)[1]
    for part in shown.split("$ manage.py ")[1:]:
        line, said = part.split("\n", 1)
        if said.startswith("CommandError: "):
            with pytest.raises(CommandError) as refused:
                call_command(*shlex.split(line))
            assert f"CommandError: {refused.value}" == said.strip()
        else:
            call_command(*shlex.split(line))
            assert capsys.readouterr().out == said
