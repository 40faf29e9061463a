"""Tasks that take several of a worker's slots: how many a claim takes, and that wide ones start."""

import pytest

from jobs import queue
from jobs.models import Ready, Task
from scheduling.scheduler import look
from tests.helpers import claim, ended, promote, register, shell, submit

pytestmark = pytest.mark.django_db


def wide(name: str, slots: int, **task):
    return shell("true", name=name, slots=slots, **task)


def names(tasks) -> list[str]:
    return [task.name for task in tasks]


def queued(*specs) -> None:
    submit(*specs)
    while promote():
        pass
    assert not Task.objects.filter(status="pending").exists()


def test_a_claim_takes_as_many_as_fit_and_nothing_less_urgent_than_what_does_not():
    worker = register(slots=8)
    queued(wide("a", 1), wide("b", 3), wide("c", 2), wide("d", 3), wide("e", 1))
    first = claim(worker, 8)
    assert names(first) == ["a", "b", "c"]
    assert [task.slots for task in first] == [1, 3, 2]
    assert names(claim(worker, 2)) == []  # d needs 3, and e comes after it
    queue.report([ended(first[0])])
    assert names(claim(worker, 3)) == ["d"]
    queue.report([ended(task) for task in first[1:]])
    assert names(claim(worker, 5)) == ["e"]


def test_a_worker_is_never_given_what_needs_more_slots_than_it_has():
    small = register("small", slots=2)
    submit(wide("a", 3), wide("b", 2))
    assert promote() == 1
    assert len(look({}, {})) == 1
    register("large", slots=3)
    assert promote() == 1
    assert names(claim(small, 9)) == ["b"]  # as it asks with tasks in hand
    assert names(claim(small, 9)) == []


def test_a_window_holds_as_many_as_the_slots_take_twice():
    register("w1", slots=7)
    register("w2", slots=4)
    submit(*[wide("a", 3)] * 20)
    promote()
    ((_, slots, *_),) = look({}, {})
    assert slots == 2 + 1
    assert Ready.objects.count() == 2 * slots


def test_what_is_more_urgent_goes_before_a_wide_task_that_waits_for_room():
    worker = register(slots=3)
    queued(wide("running", 1))
    claim(worker, 3)
    queued(wide("wide", 3, priority=5), wide("later", 1))
    assert names(claim(worker, 2)) == []
    queued(wide("urgent", 1, priority=9))
    assert names(claim(worker, 2)) == ["urgent"]


class Stream:
    """Short tasks without end beside one wide one, on workers that claim in turn, as each of their
    tasks ends."""

    def __init__(self, *slots: int) -> None:
        self.workers = [register(f"w{n}", slots=total) for n, total in enumerate(slots)]
        self.held = {worker.pk: [] for worker in self.workers}
        self.feed(sum(slots))
        for worker in self.workers:
            self.claim(worker)

    def feed(self, number: int = 12) -> None:
        submit(*[wide("narrow", 1)] * number)
        promote()

    def free(self, worker) -> int:
        return worker.slots - sum(task.slots for task in self.held[worker.pk])

    def claim(self, worker) -> None:
        if free := self.free(worker):
            self.held[worker.pk] += claim(worker, free)
        assert self.free(worker) >= 0

    def end_one_each(self) -> None:
        for worker in self.workers:
            if self.held[worker.pk]:
                queue.report([ended(self.held[worker.pk].pop(0))])
            self.claim(worker)


def test_a_wide_task_starts_though_narrow_ones_never_end_and_one_worker_makes_room():
    stream = Stream(4, 4, 4)
    submit(wide("wide", 4))
    idle = []
    while len(idle) < 10 and not any("wide" in names(held) for held in stream.held.values()):
        stream.feed()
        stream.end_one_each()
        idle.append(sum(map(stream.free, stream.workers)))
    assert idle == [1, 2, 3, 0]


def test_two_wide_tasks_are_made_room_for_by_two_workers():
    stream = Stream(4, 4, 4)
    submit(*[wide("wide", 4)] * 2)
    for _ in range(4):
        stream.feed()
        stream.end_one_each()
    found = sorted(map(names, stream.held.values()))
    assert found == [["narrow"] * 4, ["wide"], ["wide"]]


def test_what_comes_back_takes_as_many_slots_again():
    worker = register(slots=4)
    queued(wide("a", 3, max_retries=1), wide("b", 2))
    (a,) = claim(worker, 4)
    queue.report([ended(a, "lost")], worker_id=worker.pk)
    (again,) = claim(worker, 4)
    assert (again.name, again.slots, again.attempt) == ("a", 3, 2)
