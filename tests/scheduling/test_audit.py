"""Each invariant is named when a row is broken by hand, and all hold after real work."""

import io
import json
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.utils import timezone

from jobs import logs, queue
from jobs.models import LogChunk, Task
from jobs.specs import LogPart
from jobs.states import Outcome
from scheduling.invariants import INVARIANTS, look, snapshot
from tests.helpers import claim, ended, promote, register, running, shell, submit
from tests.webs import step

pytestmark = pytest.mark.django_db
WARNINGS = {
    "deadlines_enforced",
    "overdue_failed",
    "queue_limits_kept",
    "schedules_fired",
    "silent_workers_recovered",
}


@pytest.fixture(autouse=True)
def _no_output_of_former_tests():
    """What tests commit to a table that Django does not manage stays there after them."""
    LogChunk.objects.all().delete()


def broken() -> set[str]:
    return {invariant.name for invariant in INVARIANTS if look(invariant).breaches}


def work() -> dict[str, int]:
    """One task in each situation that the verbs can leave it in; their ids by its name."""
    worker = register("w1", slots=20)
    names = ("done", "failed", "retrying", "poison", "released", "stopped", "again", "running")
    specs = [shell("x", name=name, max_retries=int(name == "retrying")) for name in names]
    submit(*specs, name="mixed")
    promote()
    tasks = {task.name: task for task in claim(worker, 20)}
    assert len(tasks) == len(names)
    queue.cancel([tasks["stopped"].task_id, tasks["running"].task_id])
    endings = {"done": "done", "failed": "failed", "retrying": "failed", "poison": "lost"}
    endings |= {"released": "released", "stopped": "failed", "again": "failed"}
    queue.report([ended(tasks[name], Outcome(outcome)) for name, outcome in endings.items()])
    part = LogPart(tasks["running"].task_id, tasks["running"].fencing_token, "stdout", 0, b"hi")
    logs.append(worker.pk, [part])
    queue.retry([tasks["again"].task_id])
    queue.cancel([tasks["again"].task_id])
    for _ in range(2):
        lost = [task for task in claim(worker, 20) if task.name == "poison"]
        queue.report([ended(task, Outcome.LOST) for task in lost])
    later, gone = submit(shell("later", run_after=timezone.now() + timedelta(1)), "gone")
    (finished,) = submit(shell("finished", priority=-5))
    queue.cancel([gone.pk, finished.pk])
    queue.settle(after=0, limit=100)
    submit("waiting", "ready", queue="other")
    queue.promote({Task.objects.last().lane_id: 1}, batch=1)
    (held,) = submit("held")
    queue.pause_job(held.job_id)
    up, over = submit(step("up"), step("over", "up"))
    fallen, _ = submit(step("fallen"), step("under", "fallen"))
    queue.cancel([fallen.pk])
    (late,) = submit(shell("late", deadline_seconds=60))
    Task.objects.filter(pk=late.pk).update(deadline_at=timezone.now())
    queue.fail_overdue(batch=10)
    return {name: task.task_id for name, task in tasks.items()} | {
        "later": later.pk,
        "gone": gone.pk,
        "finished": finished.pk,
        "held": held.pk,
        "up": up.pk,
        "over": over.pk,
        "late": late.pk,
    }


def test_all_invariants_hold_after_work_of_every_kind():
    ids = work()

    assert broken() == set()
    statuses = dict(Task.objects.filter(pk__in=ids.values()).values_list("pk", "status"))
    found = {name: statuses[pk] for name, pk in ids.items()}
    assert found == {
        "done": "done",
        "failed": "failed",
        "retrying": "pending",
        "poison": "failed",
        "released": "in_progress",
        "stopped": "cancelled",
        "again": "cancelled",
        "running": "in_progress",
        "later": "pending",
        "gone": "cancelled",
        "finished": "cancelled",
        "held": "pending",
        "up": "pending",
        "over": "pending",
        "late": "failed",
    }


NO_CHECKS = "ALTER TABLE tasks DROP CONSTRAINT tasks_completed_at_iff_ended"
DROP_JOB_KEY = """DO $$ DECLARE name text; BEGIN FOR name IN SELECT conname FROM pg_constraint
    WHERE conrelid = 'tasks'::regclass AND contype = 'f'
    LOOP EXECUTE 'ALTER TABLE tasks DROP CONSTRAINT ' || name; END LOOP; END $$"""
SCHEDULE = """INSERT INTO schedules (name, cron, time_zone, template, overlap, catch_up,
    catch_up_limit, jitter_seconds, created_by, paused_reason, next_run_at)
    VALUES ('s', '* * * * *', 'UTC', jsonb_build_object(), 'allow', 'one', 1, 0, '', '',
    now() - interval '1 day')"""
# What breaks each invariant: statements in which {name} is the id of that task of `work`.
BREAKS = {
    "live_task_placed": ["DELETE FROM deferred WHERE task_id = {later}"],
    "placed_once": [
        "INSERT INTO waiting (task_id, lane_id, score, job_id)"
        " SELECT task_id, lane_id, score, job_id FROM deferred WHERE task_id = {later}"
    ],
    "place_matches_status": ["UPDATE tasks SET status = 'queued' WHERE id = {later}"],
    "ended_task_gone": [
        "INSERT INTO waiting (task_id, lane_id, score, job_id)"
        " SELECT id, lane_id, score, job_id FROM tasks WHERE id = {done}"
    ],
    "narrow_row_has_task": ["UPDATE deferred SET task_id = 999999 WHERE task_id = {later}"],
    "narrow_copies_agree": ["UPDATE deferred SET score = score + 1 WHERE task_id = {later}"],
    "lease_copies_agree": ["UPDATE leases SET loss_count = 1 WHERE task_id = {running}"],
    "lease_worker_known": ["UPDATE leases SET worker_id = 999999 WHERE task_id = {running}"],
    "pause_in_force": ["UPDATE jobs SET paused_at = NULL WHERE paused_at IS NOT NULL"],
    "limits_counted": [
        "UPDATE tasks SET concurrency_key = 'db' WHERE id = {running}",
        "INSERT INTO limits (key, max_running) VALUES ('db', 1)",
    ],
    "limits_kept": [
        "UPDATE tasks SET concurrency_key = 'db' WHERE id IN ({running}, {released})",
        "INSERT INTO limits (key, max_running, changed_at)"
        " VALUES ('db*', 1, now() - interval '1 s')",
        "INSERT INTO permits (task_id, key, attempt, promoted_at)"
        " VALUES ({running}, 'db', 1, now()), ({released}, 'db', 1, now())",
    ],
    "limits_line_up_their_own": [
        "DELETE FROM deferred WHERE task_id = {later}",
        "INSERT INTO blocked (task_id, lane_id, reason, key, score, job_id)"
        " SELECT id, lane_id, 'limit', 'db', score, job_id FROM tasks WHERE id = {later}",
    ],
    "queue_limits_kept": ["UPDATE queues SET max_running = 1"],
    "dependencies_counted": ["UPDATE blocked SET unmet = 2 WHERE task_id = {over}"],
    "dependencies_told": ["DELETE FROM ended_parents"],
    "dependencies_awaited": [
        "INSERT INTO dependencies (task_id, depends_on_id, on_failure, met)"
        " VALUES ({later}, {up}, 'cancel', false)"
    ],
    "dependents_known": ["UPDATE tasks SET has_dependents = false WHERE id = {up}"],
    "dependency_tasks_exist": [
        "UPDATE dependencies SET depends_on_id = 999999 WHERE task_id = {over}"
    ],
    "keys_distinct": ["UPDATE tasks SET key = 'up' WHERE id = {over}"],
    "waiting_task_unassigned": ["UPDATE tasks SET assigned_worker_id = 1 WHERE id = {later}"],
    "completed_iff_ended": [NO_CHECKS, "UPDATE tasks SET completed_at = now() WHERE id = {later}"],
    "retries_bounded": ["UPDATE tasks SET retry_count = 2 WHERE id = {retrying}"],
    "retry_rules_kept": [
        """UPDATE tasks SET retry = '{{"retry_on": [75]}}' WHERE id = {retrying}"""
    ],
    "deadline_kept": ["UPDATE tasks SET deadline_at = started_at WHERE id = {done}"],
    "attempts_in_sequence": ["UPDATE attempts SET number = 7 WHERE task_id = {done}"],
    "attempts_complete": ["DELETE FROM attempts WHERE task_id = {retrying}"],
    "status_has_its_attempt": ["UPDATE attempts SET outcome = 'failed' WHERE task_id = {done}"],
    "done_is_final": ["UPDATE attempts SET outcome = 'done' WHERE task_id = {retrying}"],
    "attempt_ends_after_start": [
        "UPDATE attempts SET ended_at = started_at - interval '1 s' WHERE task_id = {done}"
    ],
    "finished_job_ended": ["UPDATE jobs SET finished_at = now() WHERE name = 'mixed'"],
    "task_job_exists": [DROP_JOB_KEY, "UPDATE tasks SET job_id = 999999 WHERE id = {done}"],
    "task_lane_fits": ["UPDATE tasks SET lane_id = 999999 WHERE id = {done}"],
    "attempt_task_exists": ["UPDATE attempts SET task_id = 999999 WHERE task_id = {stopped}"],
    "attempt_worker_exists": ["UPDATE attempts SET worker_id = 999999 WHERE task_id = {done}"],
    "log_task_exists": ["UPDATE log_chunks SET task_id = 999999"],
    "constraints_in_force": [NO_CHECKS],
    "firing_job_once": [
        SCHEDULE,
        "INSERT INTO firings (schedule_id, scheduled_at, outcome, job_id)"
        " SELECT id, now() + n * interval '1 s', 'fired', 7"
        " FROM schedules, generate_series(1, 2) n",
    ],
    "schedules_fired": [SCHEDULE],
    "deadlines_enforced": [
        "UPDATE leases SET deadline_at = now() - interval '1 day' WHERE task_id = {running}"
    ],
    "overdue_failed": ["UPDATE tasks SET deadline_at = now() - interval '1 day' WHERE id = {up}"],
    "silent_workers_recovered": [
        "UPDATE workers SET last_heartbeat = now() - interval '1 day'",
        "UPDATE leases SET claimed_at = now() - interval '1 day'",
    ],
}
# Other invariants that the same break must break as well.
ALSO = {
    "firing_job_once": {"schedules_fired"},
    "narrow_row_has_task": {"live_task_placed"},
    "completed_iff_ended": {"constraints_in_force"},
    "attempt_task_exists": {"attempts_complete"},
    "silent_workers_recovered": {"lease_copies_agree"},
}


@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda invariant: invariant.name)
def test_a_broken_row_is_named(invariant):
    ids = work()

    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for statement in BREAKS[invariant.name]:
            cursor.execute(statement.format(**ids) if "{" in statement else statement)

    assert broken() == {invariant.name} | ALSO.get(invariant.name, set())
    finding = look(invariant)
    assert invariant.warning == (invariant.name in WARNINGS)
    assert finding.ids


def test_a_retry_that_lost_its_former_attempt_is_named():
    ids = work()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM attempts WHERE task_id = %s AND number = 2", [ids["poison"]])

    assert broken() == {"attempts_in_sequence", "attempts_complete"}


# -- the command


def audit(*arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    try:
        call_command("audit", *arguments, stdout=out)
    except CommandError as error:
        return error.returncode, out.getvalue()
    return 0, out.getvalue()


@pytest.mark.django_db(transaction=True)
def test_the_command_says_what_is_broken_and_what_to_do():
    work()
    status, said = audit()
    assert status == 0
    assert f"{len(INVARIANTS)} of {len(INVARIANTS)} invariants hold" in said
    tasks = submit(*["true"] * 12)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM waiting WHERE task_id >= %s", [tasks[0].pk])

    status, said = audit()

    assert status == 1
    first_ten = ", ".join(str(task.pk) for task in tasks[:10])
    assert "broken: live_task_placed: a task that has not ended is in a narrow table" in said
    assert f"  not so for 12: task {first_ten}, ...\n  it would never run" in said
    status, said = audit("--json")
    document = json.loads(said)
    assert (status, document["ok"]) == (1, False)
    (finding,) = document["findings"]
    assert finding["count"] == 12
    assert finding["ids"] == [task.pk for task in tasks[:10]]
    assert document["checked"] == [invariant.name for invariant in INVARIANTS]


@pytest.mark.django_db(transaction=True)
def test_a_warning_alone_leaves_the_exit_status_0():
    running("true")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE leases SET deadline_at = now() - interval '1 day'")

    status, said = audit()

    assert status == 0
    assert "warning: deadlines_enforced" in said
    assert "start manage.py run_recovery" in said


def test_bad_options_exit_2():
    assert audit("--yaml")[0] == 2


@pytest.mark.django_db(transaction=True)
def test_the_audit_sees_one_moment_and_writes_nothing():
    submit("true")
    with snapshot(), connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        assert cursor.fetchone() == ("repeatable read",)
        with pytest.raises(DatabaseError, match="read-only"):
            cursor.execute("DELETE FROM waiting")
        connection.set_rollback(True)
