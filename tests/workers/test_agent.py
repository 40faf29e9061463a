"""The agent in this process, with a guard, real commands and the database's transport."""

import uuid

import pytest
from django.utils import timezone

from jobs.models import Task
from jobs.specs import Claimed
from jobs.states import Kind
from tests.helpers import promote, shell, submit, wait_until
from tests.workers.guarded import adopt_no_more
from workers.agent import Agent
from workers.guard_wire import boottime
from workers.models import State
from workers.processes import Guard
from workers.registry import Beat, Registration
from workers.runner import Runner
from workers.spool import Spool
from workers.transports.database import DatabaseTransport

pytestmark = pytest.mark.django_db(transaction=True)


class Overtaken(DatabaseTransport):
    """Reports and claims while a heartbeat is on its way, as the agent's other thread may."""

    agent: Agent

    def heartbeat(self, held, *, draining):
        self.agent.exchange()
        return super().heartbeat(held, draining=draining)


@pytest.fixture
def agent(tmp_path):
    registration = Registration(name="w1", boot_id=uuid.uuid4(), machine_id="m1", slots=1)
    transport = Overtaken()
    guards = []

    def start_guard() -> Guard:
        guards.append(Guard(tmp_path / "lock"))
        return guards[-1]

    made = Agent(
        registration,
        transport,
        lambda on_end: Runner(registration.boot_id, 1, start_guard, on_end),
        drain_seconds=1,
        spool=Spool(tmp_path / "w1.spool"),
    )
    transport.agent = made
    transport.register(registration)
    made.heartbeat.tick()  # the first lease
    made.runner.start()
    yield made
    for guard in guards:
        guard.close()
    transport.listener.close()
    adopt_no_more()


def test_a_heartbeat_sent_before_a_task_was_claimed_anew_does_not_end_it(agent):
    (task,) = submit(shell("sleep 5"))
    promote()
    agent.exchange()
    assert agent.runner.held() == {task.pk: 1}
    agent.runner.stop([task.pk], "released", now=True)
    wait_until(lambda: agent.runner.endings(1))

    # It names the first attempt; before it arrives that is reported and the task claimed again.
    agent.heartbeat.tick()

    assert agent.runner.held() == {task.pk: 2}
    with pytest.raises(AssertionError):
        wait_until(lambda: agent.runner.endings(1), 0.5)


@pytest.mark.parametrize(("ends", "takes_in_hand"), [(1, False), (20, True)])
def test_only_ends_in_quick_succession_make_a_worker_take_tasks_in_hand(agent, ends, takes_in_hand):
    """The end of one tells nothing of how soon the next may start."""
    runner, rooms = agent.runner, []

    def note_room() -> None:
        rooms.append(runner.room())
        if len(rooms) < ends:
            runner.add([quick(len(rooms) + 1)])

    runner.on_end = note_room
    runner.add([quick(1)])
    wait_until(lambda: len(rooms) == ends)

    assert (max(rooms) > runner.slots) == takes_in_hand


def quick(number: int) -> Claimed:
    return Claimed(number, 1, "", Kind.SHELL, {"cmd": "true"}, 1, 1, None, timezone.now())


def test_nothing_is_claimed_while_the_guard_would_refuse_to_start_it(agent):
    """The database is back, the heartbeat is not yet: what is claimed now only goes back."""
    (task,) = submit("sleep 5")
    promote()
    agent.runner.renew(boottime() - 1)

    for _ in range(3):
        agent.exchange()
        wait_until(lambda: len(agent.runner.endings()) == len(agent.runner.held()))
    task.refresh_from_db()
    assert (task.status, task.attempt) == ("queued", 0)

    agent.heartbeat.tick()
    agent.exchange()
    assert agent.runner.held() == {task.pk: 1}


def test_after_an_end_that_nothing_follows_the_agent_waits(agent):
    """To claim again at once would find nothing but a wake-up's news, which comes by itself."""
    submit("true", "true")
    promote()
    assert agent.exchange() == 1
    wait_until(lambda: agent.runner.endings(1))
    assert agent.exchange() == 1
    wait_until(lambda: agent.runner.endings(1))
    assert agent.exchange() == 0
    assert not Task.objects.live().exists()


class Telling(Overtaken):
    """Tells of work each time that it is listened to."""

    listened = beats = 0
    telling = ready = True

    def listen(self) -> None:
        self.listened += 1
        self.telling = True

    def listening_seconds(self):
        return 10.0 if self.telling else None

    def told(self):
        if not self.telling:
            return None
        self.telling = False
        return boottime(), Beat(state=State.ONLINE, lost=[], cancelled=[], ready=self.ready)

    def heartbeat(self, held, *, draining):
        self.beats += 1
        return DatabaseTransport.heartbeat(self, held, draining=draining)


def test_told_in_vain_again_and_again_it_does_not_listen_for_once(agent):
    """Else it would go round and round where what is ready cannot be claimed."""
    agent.transport.__class__ = Telling
    counts = []
    for _ in range(5):
        agent.tick()
        counts.append(agent.transport.listened)
    assert counts == [1, 2, 2, 3, 4]


def test_told_that_there_is_nothing_it_does_not_ask_either(agent):
    agent.transport.__class__ = Telling
    agent.transport.ready = False
    submit("true")
    promote()
    assert agent.tick() == 0
    assert not agent.runner.held()
    agent.transport.ready = None
    assert agent.tick() == 1


def test_what_waits_for_work_is_a_heartbeat_until_there_is_some(agent):
    agent.transport.__class__ = Telling
    agent.heartbeat.tick()
    assert agent.transport.beats == 0
    submit(shell("sleep 5"))
    promote()
    agent.tick()
    agent.transport.telling = True
    agent.heartbeat.tick()
    assert agent.transport.beats == 1
    agent.runner.stop(agent.runner.held(), "released", now=True)
    wait_until(lambda: agent.runner.endings(1))
    agent.tick()
    agent.runner.renew(boottime() - 1)
    agent.heartbeat.tick()
    assert agent.transport.beats == 2


def test_an_old_answer_does_not_shorten_the_lease(agent):
    agent.transport.__class__ = Telling
    until = agent.runner.lease_until + 100
    agent.runner.renew(until)
    agent.tick()
    assert agent.runner.lease_until == until
