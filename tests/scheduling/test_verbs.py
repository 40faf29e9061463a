"""The verbs against a model of the state machine, alone and two at once on real connections.

Each task is judged by itself: what both verbs answered, and the row they left, must be what one
of the two orders allows. After each step all invariants hold. The suite always plays the
same steps; DTS_TEST_EXAMPLES=1000 plays more, and others each time.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from typing import Any, NamedTuple

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from jobs import queue
from jobs.models import Lane, Limit
from jobs.promotion import hold_up_promotion
from jobs.specs import Ending, JobSpec, Parent
from jobs.states import Outcome
from scheduling.invariants import INVARIANTS, look
from tests.helpers import register, shell
from tests.webs import step
from workers import registry

ASKED = os.environ.get("DTS_TEST_EXAMPLES")
MAX_LOSSES = 3
STATE = """
SELECT tasks.id, coalesce(final_status, place), job_id, paused_at IS NOT NULL,
    dependency_count > 0, concurrency_key <> '', generation, fencing_token, retry_count,
    max_retries, loss_count, cancel_requested_at IS NOT NULL, deadline_at <= now(),
    assigned_worker_id, array(
        SELECT concat_ws(' ', fencing_token, outcome, worker_id) FROM attempts
        WHERE task_id = tasks.id)
FROM tasks JOIN jobs ON jobs.id = job_id LEFT JOIN (
    SELECT task_id, 'waiting' AS place FROM waiting UNION ALL SELECT task_id, 'ready' FROM ready
    UNION ALL SELECT task_id, 'deferred' FROM deferred
    UNION ALL SELECT task_id, CASE reason WHEN 'paused' THEN 'held' WHEN 'limit' THEN 'lined'
        ELSE 'awaits' END FROM blocked
    UNION ALL SELECT task_id, 'leased' FROM leases
) narrow ON task_id = tasks.id
"""
KEY = "scarce"
ENDED = ("done", "failed", "cancelled")


class State(NamedTuple):
    """A task as the database has it; `place` is its narrow table, or how it ended."""

    place: str
    job: int
    paused: bool
    depends: bool
    keyed: bool
    generation: int
    token: int
    retries: int
    max_retries: int
    losses: int
    cancel: bool
    late: bool | None  # whether its deadline has passed, if it has one
    worker: int | None
    recorded: frozenset[str]

    def back(self, place: str) -> str:
        """Where the task comes that would go there if its job were not paused."""
        return "held" if self.paused and place in ("waiting", "ready", "lined") else place

    def end(self, outcome: str, *, proven: bool = True) -> "State":
        lost = outcome == "lost" and proven
        if outcome == "done":
            place = "done"
        elif self.cancel:
            place = "cancelled"
        elif outcome in ("released", "cancelled"):
            place = self.back("ready")
        elif outcome == "lost":
            place = "failed" if self.losses + lost >= MAX_LOSSES else self.back("ready")
        else:
            again = self.retries < self.max_retries and not self.late
            place = "deferred" if again else "failed"
        return self._replace(
            place=place,
            retries=self.retries + (place == "deferred"),
            losses=self.losses + lost,
            worker=self.worker if place in ENDED else None,
            recorded=self.recorded | {f"{self.token} {outcome} {self.worker}"},
        )


class Verb(NamedTuple):
    """`run` asks the queue; `may` gives the states that its answer for a task allows."""

    name: str
    run: Callable[[], Any]
    may: Callable[[int, State, Any], set[State]]
    claims_for: int | None = None


def rest(state: State) -> str:
    return {"ready": "queued", "leased": "in_progress"}.get(
        state.place, state.place if state.place in ENDED else "pending"
    )


def mover(name: str, run: Callable[[], Any], before: str, after: str) -> Verb:
    """A verb that may move any of what is in one place: others' locks hide some from it."""
    return Verb(
        name,
        run,
        lambda task, s, answer: (
            {s} | ({s._replace(place=s.back(after))} if s.place == before else set())
        ),
    )


def promoting(lane: int, n: int) -> Verb:
    """As the scheduler does it, alone. What has a limited key may be put into its line."""

    def run() -> dict:
        with transaction.atomic():
            hold_up_promotion()
            queue.sweep_permits()
            return queue.promote({lane: n}, batch=n, lines=queue.Lines())

    def may(task: int, s: State, answer: dict) -> set[State]:
        after = {"waiting": {"ready", "lined"} if s.keyed else {"ready"}, "lined": {"ready"}}
        return {s} | {s._replace(place=place) for place in after.get(s.place, set())}

    return Verb(f"promote {n}", run, may)


def limiting(most: int | None) -> Verb:
    """What stands in the line of a key is let go when that has no limit any more."""
    if most:
        run = lambda: queue.limit_key(KEY, {"max_running": most}) and False  # noqa: E731
    else:
        run = lambda: queue.unlimit_key(KEY)  # noqa: E731

    def may(task: int, s: State, answer: bool) -> set[State]:
        return {s._replace(place="waiting")} if answer and s.place == "lined" else {s}

    return Verb(f"limit {most}", run, may)


def cancelling(ids: list[int]) -> Verb:
    def may(task: int, s: State, answer: dict[int, str]) -> set[State]:
        told = answer.get(task)
        if task not in ids or s.place in ENDED:
            return {s} if told is None else set()
        if s.place == "leased":
            return {s._replace(cancel=True)} if told == "in_progress" else set()
        return {s._replace(cancel=True, place="cancelled")} if told == "cancelled" else set()

    return Verb(f"cancel {ids}", lambda: queue.cancel(ids), may)


def retrying(ids: list[int]) -> Verb:
    def may(task: int, s: State, answer: list[int]) -> set[State]:
        # What a parent's end cancelled comes back with the parent, and not without it.
        follows = s.depends and s.place == "cancelled"
        named = task in ids or (follows and not s.cancel)
        if not named or s.place not in ("failed", "cancelled"):
            return set() if task in answer else {s}
        if task not in answer:
            return {s} if follows else set()
        fresh = s._replace(
            place="awaits" if s.depends else s.back("waiting"),
            generation=s.generation + 1,
            retries=0,
            losses=0,
            cancel=False,
            late=None if s.late is None else False,
            worker=None,
        )
        return {fresh}

    return Verb(f"retry {ids}", lambda: queue.retry(ids), may)


def prioritising(ids: list[int]) -> Verb:
    """What has not started keeps its state, but that what is queued goes back to wait."""

    def may(task: int, s: State, answer: list[int]) -> set[State]:
        if task not in ids or s.place in ("leased", *ENDED):
            return set() if task in answer else {s}
        place = "waiting" if s.place == "ready" else s.place
        return {s._replace(place=place)} if task in answer else set()

    return Verb(f"prioritise {ids}", lambda: queue.prioritise(ids, 7), may)


def holding(job: int) -> Verb:
    def may(task: int, s: State, answer: bool) -> set[State]:
        if not answer or s.job != job:
            return {s}
        held = s._replace(paused=True)
        return set() if s.paused else {held._replace(place=held.back(s.place))}

    return Verb(f"pause job {job}", lambda: queue.pause_job(job), may)


def letting_go(job: int) -> Verb:
    def may(task: int, s: State, answer: bool) -> set[State]:
        if not answer or s.job != job:
            return {s}
        place = "waiting" if s.place == "held" else s.place
        return {s._replace(paused=False, place=place)} if s.paused else set()

    return Verb(f"resume job {job}", lambda: queue.resume_job(job), may)


def claiming(worker: Any, limit: int) -> Verb:
    def may(task: int, s: State, answer: list) -> set[State]:
        told = {claimed.task_id: claimed.fencing_token for claimed in answer}
        if task not in told:
            return {s}
        claimed = s._replace(place="leased", token=s.token + 1, worker=worker.pk)
        may_start = s.place == "ready" and not s.late
        return {claimed} if may_start and told[task] == claimed.token else set()

    return Verb(
        f"claim {limit} by {worker}",
        lambda: queue.claim(worker_id=worker.pk, boot_id=worker.boot_id, limit=limit),
        may,
        claims_for=worker.pk,
    )


def reporting(task_id: int, token: int, outcome: str, worker_id: int) -> Verb:
    def may(task: int, s: State, answer: dict[int, str]) -> set[State]:
        told = answer.get(task)
        if task == task_id:
            if (s.place, s.token, s.worker) == ("leased", token, worker_id):
                ended = s.end(outcome)
                return {ended} if told == rest(ended) else set()
            if f"{token} {outcome} {worker_id}" in s.recorded:
                return {s} if told is not None else set()
        return {s} if told is None else set()

    ending = Ending(task_id=task_id, fencing_token=token, outcome=outcome)
    return Verb(
        f"report {outcome} of {task_id} under {token} by {worker_id}",
        lambda: queue.report([ending], worker_id=worker_id),
        may,
    )


def taking_back(
    name: str,
    run: Callable[[], Any],
    outcome: str,
    lapsed: Callable[[int, State], bool],
    *,
    proven: bool,
) -> Verb:
    """Recovery's verbs: they may end those leases only that have lapsed."""

    def may(task: int, s: State, answer: dict[int, str]) -> set[State]:
        if task not in answer:
            return {s}
        ended = s.end(outcome, proven=proven)
        allowed = s.place == "leased" and lapsed(task, s)
        return {ended} if allowed and answer[task] == rest(ended) else set()

    return Verb(name, run, may)


def failing_overdue() -> Verb:
    def may(task: int, s: State, answer: list[int]) -> set[State]:
        if task not in answer:
            return {s}
        waits = s.place not in ("leased", *ENDED)
        return {s._replace(place="failed")} if waits and s.late else set()

    return Verb("fail overdue", lambda: queue.fail_overdue(batch=9), may)


def releasing() -> Verb:
    """What awaits others may start, or is cancelled; which of these, the invariants say."""

    def may(task: int, s: State, answer: Any) -> set[State]:
        if s.place != "awaits":
            return {s}
        return {s, s._replace(place=s.back("waiting")), s._replace(place="cancelled")}

    return Verb("release", queue.release, may)


def aside(name: str, run: Callable[[], Any]) -> Verb:
    return Verb(name, run, lambda task, s, answer: {s})


WORKERS = st.integers(0, 1)
PICKS = st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True)
CALLS = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 3), st.integers(0, 1)),
    st.tuples(st.just("submit_keyed"), st.integers(1, 4)),
    st.tuples(st.just("limit"), st.sampled_from([1, 2, 2, 3, None])),
    st.tuples(st.just("submit_web"), PICKS, st.sampled_from(["cancel", "run"])),
    st.tuples(st.just("release")),
    st.tuples(st.sampled_from(["promote", "recall"]), st.integers(1, 4)),
    st.tuples(st.just("claim"), WORKERS, st.integers(1, 4)),
    st.tuples(st.just("claim"), WORKERS, st.integers(1, 4)),
    st.tuples(st.just("report"), st.integers(0, 40), st.sampled_from(list(Outcome.values))),
    st.tuples(st.just("report"), st.integers(0, 5), st.sampled_from(list(Outcome.values))),
    st.tuples(st.sampled_from(["cancel", "retry", "prioritise"]), PICKS),
    st.tuples(st.sampled_from(["due", "settle", "recover", "expire", "fail_overdue"])),
    st.tuples(st.sampled_from(["pause", "resume"]), st.integers(0, 3)),
    st.tuples(st.just("recover_boot"), WORKERS),
    st.tuples(st.just("heartbeat"), WORKERS, st.booleans()),
)
MOVING = st.one_of(
    st.tuples(st.just("promote"), st.just(9)),
    st.tuples(st.just("recall"), st.just(9)),
    st.tuples(st.just("claim"), WORKERS, st.just(9)),
    st.tuples(st.just("report"), st.integers(0, 5), st.sampled_from(["released", "failed"])),
)


class Verbs(RuleBasedStateMachine):
    threads: tuple[ThreadPoolExecutor, ...] = ()

    @initialize()
    def begin(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "TRUNCATE tasks, jobs, lanes, waiting, ready, deferred, blocked, leases,"
                " dependencies, ended_parents, attempts, log_chunks, workers, limits, permits"
                " RESTART IDENTITY"
            )
        self.workers = [register("w1"), register("w2")]
        self.lane = Lane.objects.create(queue="default", requires=[]).pk
        self.claims: list[tuple[int, int, int]] = []  # task, token, worker; the newest first
        self.lapsed: set[tuple[int, int]] = set()
        self.overdue: set[tuple[int, int]] = set()
        self.states = self.read()
        self.check([self.verb("limit", 2)])
        self.check([self.verb("submit", 3, 1)])
        self.check([self.verb("submit_keyed", 4)])
        self.check([self.verb("promote", 2)])

    def read(self) -> dict[int, State]:
        with connection.cursor() as cursor:
            cursor.execute(STATE)
            return {pk: State(*row, frozenset(told)) for pk, *row, told in cursor.fetchall()}

    @rule(call=CALLS)
    def alone(self, call: tuple) -> None:
        self.check([self.verb(*call)])

    @rule(one=CALLS, other=CALLS, held=st.booleans())
    def at_once(self, one: tuple, other: tuple, held: bool) -> None:
        self.check([self.verb(*one), self.verb(*other)], held=held)

    @rule(call=CALLS, moving=MOVING, held=st.booleans())
    def beside_what_moves_most(self, call: tuple, moving: tuple, held: bool) -> None:
        self.check([self.verb(*moving), self.verb(*call)], held=held)

    @rule(worker=WORKERS, nth=st.integers(0, 5), outcome=st.sampled_from(Outcome.values))
    def report_late(self, worker: int, nth: int, outcome: str) -> None:
        """A task given back and claimed again by the same worker is reported by the first."""
        worker_id = self.workers[worker].pk
        held = [claim for claim in self.claims if self.states[claim[0]].worker == worker_id]
        if held:
            task, token, _ = held[nth % len(held)]
            self.check([reporting(task, token, "released", worker_id)])
            self.check([self.verb("claim", worker, 9)])
            self.check([reporting(task, token, outcome, worker_id)])

    @rule()
    def fall_silent(self) -> None:
        """A day passes in which no worker is heard of."""
        with connection.cursor() as cursor:
            cursor.execute("UPDATE workers SET last_heartbeat = now() - interval '1 day'")
            cursor.execute(
                "WITH aged AS (UPDATE leases SET claimed_at = claimed_at - interval '1 day'"
                " RETURNING task_id, fencing_token, claimed_at), moved AS (UPDATE tasks"
                " SET started_at = claimed_at FROM aged WHERE task_id = id)"
                " SELECT task_id, fencing_token FROM aged"
            )
            self.lapsed |= set(cursor.fetchall())

    @rule()
    def pass_deadlines_and_backoffs(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE deferred SET due_at = now()")
            cursor.execute(
                "UPDATE tasks SET deadline_at = now() WHERE final_status IS NULL AND"
                " (started_at IS NULL OR started_at < now()) AND deadline_at > now()"
            )
            cursor.execute(
                "UPDATE leases SET deadline_at = now() - interval '1 s'"
                " RETURNING task_id, fencing_token"
            )
            self.overdue |= set(cursor.fetchall())
        self.states = self.read()

    @invariant()
    def all_invariants_hold(self) -> None:
        found = [look(one) for one in INVARIANTS if not one.warning]
        assert not [(f.invariant.name, f.ids) for f in found if f.breaches]

    def check(self, verbs: list[Verb], *, held: bool = False) -> None:
        """Runs the verbs, each on a connection of its own, and judges each task by itself."""
        before, limit = self.states, self.limit()
        answers = self.run_alongside(verbs, held=held)
        asked = list(zip(verbs, answers, strict=True))
        self.states = self.read()
        assert before.keys() <= self.states.keys()
        live, lived = scarce(self.states), scarce(before)
        assert live <= max(lived, limit or live, self.limit() or live), [v.name for v in verbs]
        for pk, state in self.states.items():
            start = before.get(pk) or state._replace(
                place="awaits" if state.depends else "waiting",
                token=0,
                cancel=False,
                late=None if state.late is None else False,
                worker=None,
                recorded=frozenset(),
            )
            allowed = set().union(*(reached(order, pk, start) for order in permutations(asked)))
            names = [verb.name for verb in verbs]
            assert state in allowed, f"{names} answered {answers}; task {pk} was {start}"
        for verb, answer in asked:
            if verb.claims_for:
                found = [(task.task_id, task.fencing_token, verb.claims_for) for task in answer]
                self.claims = found + self.claims

    def limit(self) -> int | None:
        return Limit.objects.filter(key=KEY).values_list("max_running", flat=True).first()

    def run_alongside(self, verbs: list[Verb], *, held: bool) -> list[Any]:
        """Starts them at the same moment; or, `held`, one after the other while all wide rows
        are locked, so that the second meets what the first has moved but not committed."""
        if held:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT FROM tasks ORDER BY id FOR UPDATE")
                running = []
                for thread, verb in zip(self.threads, verbs, strict=False):
                    running.append(thread.submit(verb.run))
                    time.sleep(0.01)
        else:
            together = threading.Barrier(len(verbs))
            running = [
                thread.submit(lambda verb=verb: (together.wait(), verb.run())[1])
                for thread, verb in zip(self.threads, verbs, strict=False)
            ]
        return [future.result(60) for future in running]

    def verb(self, name: str, *given: Any) -> Verb:
        ids = sorted(self.states)
        match (name, *given):
            case "submit", n, retries:
                some = [shell("x", max_retries=retries, deadline_seconds=9e4)] * (n - 1)
                spec = JobSpec(name="x", tasks=[*some, shell("x", max_retries=retries)])
                return aside(name, lambda: queue.submit(spec))
            case "submit_keyed", n:
                tasks = [shell("x", concurrency_key=KEY, max_retries=1)] * n
                return aside(name, lambda: queue.submit(JobSpec(name="scarce", tasks=tasks)))
            case "limit", most:
                return limiting(most)
            case "submit_web", picks, on_failure:
                # A task after some of those there are, unless they ended badly; and one after it.
                parents = [Parent(ids[n % len(ids)], "run") for n in set(picks)] if ids else []
                parents = list({parent.task: parent for parent in parents}.values())
                middle = Parent("middle", on_failure)
                tasks = [step("middle", *parents), step("last", middle)]
                return aside(name, lambda: queue.submit(JobSpec(name="web", tasks=tasks)))
            case ("release",):
                return releasing()
            case "promote", n:
                return promoting(self.lane, n)
            case "recall", _:
                run = lambda: queue.recall({self.lane: (0, 0)})  # noqa: E731
                return mover(name, run, "ready", "waiting")
            case ("due",):
                return mover(name, lambda: queue.bring_due(batch=9), "deferred", "waiting")
            case ("settle",):
                return aside(name, lambda: queue.settle(after=0, limit=100))
            case "claim", worker, limit:
                return claiming(self.workers[worker], limit)
            case "report", nth, outcome:
                if not self.claims:
                    return aside("nothing", lambda: None)
                task, token, worker_id = self.claims[nth % len(self.claims)]
                return reporting(task, token, outcome, worker_id)
            case (("pause" | "resume"), nth):
                jobs = sorted({s.job for s in self.states.values()})
                return (holding if name == "pause" else letting_go)(jobs[nth % len(jobs)])
            case "cancel", picks:
                return cancelling([ids[n % len(ids)] for n in picks] if ids else [])
            case "retry", picks:
                return retrying([ids[n % len(ids)] for n in picks] if ids else [])
            case "prioritise", picks:
                return prioritising([ids[n % len(ids)] for n in picks] if ids else [])
            case ("recover",):
                run = lambda: registry.recover_silent()[1]  # noqa: E731
                silent = lambda task, s: (task, s.token) in self.lapsed  # noqa: E731
                return taking_back(name, run, "lost", silent, proven=False)
            case ("fail_overdue",):
                return failing_overdue()
            case ("expire",):
                late = lambda task, s: (task, s.token) in self.overdue  # noqa: E731
                return taking_back(name, queue.expire, "timed_out", late, proven=False)
            case "recover_boot", worker:
                pk = self.workers[worker].pk
                run = lambda: queue.recover_boot(pk)  # noqa: E731
                held = lambda task, s: s.worker == pk  # noqa: E731
                return taking_back(name, run, "lost", held, proven=True)
            case "heartbeat", worker, remembers:
                return self.heartbeat(self.workers[worker], remembers)
        raise AssertionError(name)

    def heartbeat(self, worker: Any, remembers: bool) -> Verb:
        """It renews what it names; what it does not name and is a lease old is released."""
        held = {t: token for t, token, _ in reversed(self.claims)} if remembers else {}

        def may(task: int, s: State, answer: Any) -> set[State]:
            unheld = (s.place, s.worker, task in held) == ("leased", worker.pk, False)
            return {s, s.end("released")} if unheld and (task, s.token) in self.lapsed else {s}

        beat = lambda: registry.heartbeat(worker.pk, worker.boot_id, held)  # noqa: E731
        return Verb(f"heartbeat of {worker} naming {held}", beat, may)


def scarce(states: dict[int, State]) -> int:
    """How many of the limited key are queued or run."""
    return sum(s.keyed and s.place in ("ready", "leased") for s in states.values())


def reached(order: tuple, pk: int, start: State) -> set[State]:
    states = {start}
    for verb, answer in order:
        states = {after for state in states for after in verb.may(pk, state, answer)}
    return states


@pytest.mark.django_db(transaction=True)
def test_the_verbs_keep_to_the_model_alone_and_at_once():
    Verbs.threads = (ThreadPoolExecutor(1), ThreadPoolExecutor(1))
    try:
        run_state_machine_as_test(
            Verbs,
            settings=settings(
                max_examples=int(ASKED or 15),
                derandomize=not ASKED,
                stateful_step_count=25,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        for thread in Verbs.threads:
            thread.submit(lambda: connection.close()).result()
            thread.shutdown()
