"""The worker process: claims what it has slots for, has it run, reports, renews, drains.

It has never heard of a table: a Transport carries its few words to the server.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from dtsproject.backoff import LONGEST_SECONDS, Backoff
from dtsproject.conf import conf
from dtsproject.errors import Refusal, Unreachable
from dtsproject.loop import Loop
from jobs.specs import Ending, LogPart
from workers.guard_wire import boottime
from workers.models import State
from workers.registry import Registration
from workers.runner import Runner
from workers.spool import Spool
from workers.transports.base import Transport

log = structlog.get_logger(__name__)

OUTPUT_SECONDS = 0.5
REPORTED_AT_ONCE = 200
# Others were quicker, or what there is cannot be claimed: then it asks by itself for once.
MOST_IN_VAIN = 3


class Heartbeat(Loop):
    """Renews the leases of all that runs, from a thread that no task can block."""

    def __init__(self, agent: "Agent") -> None:
        super().__init__()
        self.full_tick = 2**31
        self.agent = agent

    def run(self, *, once: bool = False) -> None:
        self.interval_seconds = conf().heartbeat_seconds
        # So that after an outage it comes well before recovery judges.
        self.longest_backoff_seconds = min(LONGEST_SECONDS, self.interval_seconds)
        super().run(once=once)

    def tick(self) -> int:
        agent, runner = self.agent, self.agent.runner
        held, asked_at = runner.held(), boottime()
        if agent.is_idle() and agent.transport.listening_seconds():
            return 0  # what it waits for is a heartbeat, too
        try:
            beat = agent.transport.heartbeat(held, draining=agent.draining)
        except Refusal as refusal:
            agent.fail(refusal)
            return 0
        runner.renew(lease_end(asked_at))
        agent.abandon({task_id: held[task_id] for task_id in beat.lost})
        runner.stop(beat.cancelled, "cancelled")
        agent.note_state(beat.state)
        agent.retry()
        return 0


def lease_end(asked_at: float) -> float:
    """When killing must begin, so that all is dead before a lease asked for then is over.

    A tenth of the lease is kept for the kill itself and for clocks that run at different rates.
    """
    return asked_at + 0.9 * conf().lease_seconds - conf().kill_grace_seconds


class Agent(Loop):
    """`run` returns when the worker has drained; `failure` then says what ended it early."""

    def __init__(
        self,
        registration: Registration,
        transport: Transport,
        make_runner: Callable[[Callable[[], None]], Runner],
        drain_seconds: float,
        spool: Spool,
    ) -> None:
        super().__init__()
        self.interval_seconds = conf().worker_poll_seconds
        self.registration = registration
        self.transport = transport
        self.drain_seconds = drain_seconds
        self.spool = spool
        self.cut_off = False
        self.state: str = State.ONLINE
        self.draining = False
        self.failure: Refusal | None = None
        self.runner = make_runner(self.wake)
        self.heartbeat = Heartbeat(self)
        self._heartbeats = threading.Thread(
            target=self.heartbeat.run, name="heartbeat", daemon=True
        )
        self._drain_until = float("inf")
        self._in_vain = 0  # told of work so often, and it got none
        self._output_at = 0.0
        self._unsent: list[LogPart] = []

    def start(self) -> None:
        """Delivers what a former boot left, then announces the worker. Raises NameTaken; waits
        while the server is out of reach, or until it is to drain."""
        backoff = Backoff()
        while True:
            self.show_life()
            try:
                self._deliver_spool()
                asked_at = boottime()
                self.transport.register(self.registration)
                break
            except Unreachable as error:
                log.warning("cannot_register", error=str(error))
                self.wait(backoff.next(error.retry_after_seconds))
            if self.draining:
                self.stop()
                return
        self.runner.guard.patience_seconds = conf().lease_seconds / 2
        self.runner.renew(lease_end(asked_at))
        self.runner.start()
        self._heartbeats.start()

    def _deliver_spool(self) -> None:
        """Before its leases are given back: what had ended is recorded as it ended."""
        endings, parts = self.spool.read()
        if endings or parts:
            states = self.transport.deliver(self.registration.name, endings, parts)
            self.spool.delivered([*endings, *parts])
            log.info("spool_delivered", endings=len(endings), recorded=len(states))
            self._log_endings(endings, states)

    def wait(self, seconds: float) -> None:
        may_send = self.runner.runs and not self.cut_off
        super().wait(min(seconds, OUTPUT_SECONDS) if may_send else seconds)

    def listening(self) -> int | None:
        return self.transport.fileno()

    def hear(self) -> None:
        if self.transport.heard():
            self.heartbeat.wake()

    def pause(self) -> float:
        # A little over a tenth more than what the loop may take off.
        listening_seconds = self.transport.listening_seconds()
        return self.interval_seconds if listening_seconds is None else 1.2 * listening_seconds

    def tick(self) -> int:
        try:
            told = self._told()
            rests = told is False and self.is_idle()
            moved = 0 if rests else self.exchange() + self.runner.work()
            if told and moved:
                self.heartbeat.wake()  # the lease it has is as old as its question
            self._in_vain = self._in_vain + 1 if told and not moved else 0
            if not moved and self.is_idle() and self._in_vain < MOST_IN_VAIN:
                self.transport.listen()
        except Refusal as refusal:
            self.fail(refusal)
            return 0
        self.cut_off = False
        if self.draining:
            self._drain()
        return moved

    def is_idle(self) -> bool:
        """Whether all that could come is work."""
        may_claim = self.state == State.ONLINE and not self.draining
        return may_claim and boottime() < self.runner.lease_until and not self.runner.held()

    def _told(self) -> bool | None:
        """Takes note of the server's word, if it has come: whether there may be work."""
        told = self.transport.told()
        if told is None:
            return None
        asked_at, beat = told
        self.runner.renew(max(self.runner.lease_until, lease_end(asked_at)))
        self.note_state(beat.state)
        return beat.ready

    def note_state(self, state: str) -> None:
        """What its server takes it for."""
        self.state = state
        if state == State.DRAINING:
            self.drain()

    def lost_contact(self) -> None:
        """Keeps on disk what cannot be delivered. A drain ends without the server if it must."""
        self.cut_off = True
        is_late = self.draining and time.monotonic() >= self._drain_until
        if self.draining:
            self._end_tasks(is_late)
        idle = not self.runner.busy_slots
        endings = self.runner.endings()
        self._unsent += self.runner.take_output()
        self.spool.keep([*endings, *self._unsent])
        if is_late and idle:
            log.warning("left_without_the_server", undelivered=len(endings))
            self.heartbeat.stop()
            self.stop()

    def exchange(self) -> int:
        """Reports what has ended, its output first, and claims what there is room for."""
        self.runner.give_back_stale()
        endings, room = self.runner.endings(REPORTED_AT_ONCE), self._room()
        if endings or time.monotonic() - self._output_at > OUTPUT_SECONDS:
            self._send_output()
        if not endings and not room:
            return 0
        asked_at = boottime()
        states, tasks = self.transport.exchange(endings, room)
        self.runner.forget(endings)
        self.spool.delivered(endings)
        self._log_endings(endings, states)
        if boottime() < lease_end(asked_at):
            self.runner.add(tasks)
        else:
            # Too old to start anything from: the next heartbeats do not name it, so it goes back.
            log.warning("claim_too_slow", tasks=[task.task_id for task in tasks])
        # Where nothing more was ready, the next look is a wake-up's to bring.
        return len(tasks) + (len(endings) == REPORTED_AT_ONCE)

    def _room(self) -> int:
        if boottime() >= self.runner.lease_until:
            self.heartbeat.wake()  # until it is answered, what was claimed could not start
            return 0
        may_claim = self.state == State.ONLINE and not self.draining
        return max(0, self.runner.room()) if may_claim else 0

    def _send_output(self) -> None:
        self._output_at = time.monotonic()
        self._unsent += self.runner.take_output()
        if self._unsent:  # kept until it is stored; a part sent twice is stored once
            self.transport.log(self._unsent)
            self.spool.delivered(self._unsent)
            self._unsent = []

    def _log_endings(self, endings: Sequence[Ending], states: Mapping[int, str]) -> None:
        """What went well is in the database; a line a task would cost more than the task."""
        for ending in endings:
            state = states.get(ending.task_id, "lease_lost")
            if ending.error or ending.task_id not in states:
                outcome, error = str(ending.outcome), ending.error
                log.info(
                    "task_ended", task=ending.task_id, outcome=outcome, state=state, error=error
                )

    def drain(self) -> None:
        """Claims nothing more; what runs has `drain_seconds` to finish, then is released."""
        if not self.draining:
            self.draining = True
            self._drain_until = time.monotonic() + self.drain_seconds
            log.info("draining", running=len(self.runner.held()))
            self.heartbeat.wake()
        self.wake()

    def release_now(self) -> None:
        """A second signal: gives back at once what runs."""
        self._drain_until = 0.0
        self.drain()

    def _drain(self) -> None:
        if not self.runner.held():
            self.heartbeat.stop()
            self._heartbeats.join(conf().lease_seconds)  # a late heartbeat would find us gone
            with contextlib.suppress(Unreachable, Refusal):  # then its name is free a lease later
                self.transport.leave()
            self.stop()
        else:
            self._end_tasks(time.monotonic() >= self._drain_until)

    def _end_tasks(self, is_late: bool) -> None:
        """Gives back what has not started; what runs, too, once it had its time."""
        held = self.runner.held()
        self.runner.give_back(held, "released")
        if is_late:
            self.runner.stop(held, "released", now=self._drain_until == 0.0)

    def abandon(self, lost: Mapping[int, int]) -> None:
        """Ends what is no longer this worker's to run ({task id: fencing token}).

        A heartbeat may be overtaken: what was reported since, or claimed anew, is not meant.
        """
        with self.runner.lock:
            held = self.runner.held()
            gone = [task_id for task_id, token in lost.items() if held.get(task_id) == token]
            self.runner.stop(gone, "lease_lost", now=True)
        if gone:
            log.warning("leases_lost", tasks=gone)

    def fail(self, refusal: Refusal) -> None:
        """Stops at once: this boot may do nothing more in its worker's name."""
        self.failure = refusal
        self.runner.stop(self.runner.held(), "lease_lost", now=True)
        self.heartbeat.stop()
        self.stop()
