"""What a worker that is cut off keeps on disk: whole, once, bounded, and never a reason to die."""

import errno
import json
import os

import pytest
from structlog.testing import capture_logs

from jobs import logs, queue
from jobs.models import Attempt, Lease, Task
from jobs.specs import Ending, LogPart
from jobs.states import Outcome
from tests.helpers import ended, register, running
from workers import registry, spool
from workers.spool import Spool

ENDINGS = [
    Ending(task_id=1, fencing_token=1, exit_code=0, result="fine\nthanks", cpu_seconds=0.5),
    Ending(task_id=2, fencing_token=3, outcome=Outcome.FAILED, signal=9, error="killed \u00fc"),
]
PARTS = [
    LogPart(1, 1, "stdout", 0, bytes(range(256))),
    LogPart(1, 1, "stdout", 256, b"more"),
    LogPart(1, 1, "stderr", 0, b"err"),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w1.spool"


def test_the_next_boot_finds_what_was_kept(path):
    Spool(path).keep([*ENDINGS, *PARTS])
    assert Spool(path).read() == (ENDINGS, PARTS)


def test_nothing_is_written_twice_and_nothing_without_need(path):
    kept = Spool(path)
    kept.keep([])
    assert not path.exists()
    kept.keep(ENDINGS[:1])
    size = path.stat().st_size
    kept.keep(ENDINGS[:1])
    assert path.stat().st_size == size
    kept.keep(ENDINGS)
    assert Spool(path).read() == (ENDINGS, [])


def test_the_file_goes_when_the_last_of_it_is_delivered(path):
    kept = Spool(path)
    kept.keep([*ENDINGS, *PARTS])
    kept.delivered(ENDINGS)
    assert path.exists()
    kept.delivered(PARTS)
    assert not path.exists()
    assert Spool(path).read() == ([], [])


def test_a_line_torn_anywhere_costs_only_itself(path):
    Spool(path).keep(ENDINGS)
    whole = path.read_bytes()
    last = len(whole) - whole.rindex(b"\n")
    for missing in range(1, last):
        path.write_bytes(whole[:-missing])
        assert Spool(path).read() == (ENDINGS[:1], [])
        Spool(path).keep(PARTS)
        assert Spool(path).read() == (ENDINGS[:1], PARTS)


def test_a_full_disk_is_said_once_and_what_comes_after_it_is_kept(path, monkeypatch):
    kept = Spool(path)
    kept.keep(ENDINGS[:1])
    before = path.read_bytes()

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    with capture_logs() as logged, monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        kept.keep(ENDINGS)
        kept.keep([*ENDINGS, *PARTS])
    assert [entry["log_level"] for entry in logged] == ["warning"]
    assert path.read_bytes() == before

    kept.keep([*ENDINGS, *PARTS])
    assert Spool(path).read() == (ENDINGS, PARTS)


def test_it_is_bounded_and_output_leaves_room_for_endings(path, monkeypatch):
    monkeypatch.setattr(spool, "MOST_BYTES", 2000)
    monkeypatch.setattr(spool, "MOST_BYTES_OF_OUTPUT", 1000)
    kept = Spool(path)
    with capture_logs() as logged:
        kept.keep(LogPart(1, 1, "stdout", 100 * n, b"x" * 100) for n in range(100))
        kept.keep(Ending(task_id=n, fencing_token=1) for n in range(100))
    assert len(logged) == 1
    assert path.stat().st_size <= 2000
    endings, parts = Spool(path).read()
    assert len(parts) >= 4
    assert len(endings) >= 8


def test_what_it_holds_is_for_the_worker_alone(path):
    Spool(path).keep(ENDINGS)
    assert path.stat().st_mode & 0o077 == 0
    assert json.loads(path.read_bytes().splitlines()[1])[0] == 1


# -- what the server makes of it -----------------------------------------------------------------


@pytest.mark.django_db
def test_what_had_ended_is_recorded_before_the_former_boot_gives_back_its_leases():
    former = register("w1")
    finished, cut_short = running("a", "b", worker=former)
    part = LogPart(finished.task_id, finished.fencing_token, "stdout", 0, b"out")

    states = registry.deliver("w1", [ended(finished, result="out")], [part])
    register("w1", former_boot_dead=True)

    assert states == {finished.task_id: "done"}
    assert Task.objects.get(pk=finished.task_id).result_text == "out"
    assert logs.read(finished.task_id, finished.fencing_token, "stdout")[0] == b"out"
    assert Task.objects.get(pk=cut_short.task_id).status == "queued"


@pytest.mark.django_db
def test_what_comes_too_late_or_again_changes_nothing():
    former = register("w1")
    late, again = running("a", "b", worker=former)
    queue.report([ended(late, Outcome.LOST)], proven=False)
    assert registry.deliver("w1", [ended(late), ended(again)], []) == {again.task_id: "done"}

    assert registry.deliver("w1", [ended(late), ended(again)], []) == {again.task_id: "done"}
    assert registry.deliver("nobody", [ended(late)], []) == {}

    assert Task.objects.get(pk=late.task_id).status == "queued"
    assert Attempt.objects.count() == 2
    assert not Lease.objects.exists()
