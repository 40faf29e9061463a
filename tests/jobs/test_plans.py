"""The hot statements read by index and never sort the backlog, whatever its size."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator

import pytest
from django.db import connection
from psycopg.sql import SQL, Literal

from jobs import queue, statements
from jobs.choice import Contender, choose
from jobs.models import Lease, Ready, Task, Waiting
from jobs.promotion import chosen
from jobs.specs import Ending
from jobs.states import Outcome
from tests.helpers import register
from workers import registry

pytestmark = pytest.mark.django_db

# A backlog of which the first HEAD have their wide rows, beside what is finished. A million of
# each (DTS_TEST_PLAN_ROWS=1000000) takes a minute to make.
WAITING = FINISHED = int(os.environ.get("DTS_TEST_PLAN_ROWS", "200000"))
HEAD, READY, LEASED, DUE = 5_000, 5_000, 2_000, 500
A_JOB = 1_000
NO_MARKS: dict[str, list] = {n: [] for n in ("lanes", "seqs", "scores", "job_ids", "task_ids")}
FILL = f"""
INSERT INTO jobs (id, name, queue, labels, submitted_by, finished_at)
    SELECT 1000 + n, '', 'default', '{{}}', '', CASE WHEN n < {FINISHED // A_JOB} THEN now() END
    FROM generate_series(0, {(FINISHED + WAITING) // A_JOB}) n;
INSERT INTO waiting (task_id, lane_id, score, job_id)
    SELECT {FINISHED} + n, 1, 7919::bigint * n % {WAITING}, 1000 + ({FINISHED} + n) / {A_JOB}
    FROM generate_series(1, {WAITING}) n;
INSERT INTO ready (task_id, lane_id, seq, score, job_id)
    SELECT 3000000 + n, 1, n - 10000, n, 1399 FROM generate_series(1, {READY}) n;
INSERT INTO leases (task_id, worker_id, fencing_token, retry_count, max_retries, loss_count,
    lane_id, seq, score, job_id)
    SELECT 4000000 + n, 100000 + n % 20, 1, 0, 0, 0, 1, n, n, 1399
    FROM generate_series(1, {LEASED}) n;
INSERT INTO deferred (task_id, lane_id, due_at, score, job_id)
    SELECT 5000000 + n, 1, now() + (n - {DUE} - 1) * interval '1 hour', n, 1399
    FROM generate_series(1, 100000) n;
INSERT INTO blocked (task_id, lane_id, reason, key, score, job_id)
    SELECT 6000000 + n, 1, 'paused', (n / 100)::text, n, n / 100 FROM generate_series(1, 50000) n;
INSERT INTO blocked (task_id, lane_id, reason, key, score, job_id, unmet)
    SELECT 7000000 + n, 1, 'dependencies', '', n, 1399, 1 FROM generate_series(1, 50000) n;
INSERT INTO blocked (task_id, lane_id, reason, key, score, job_id)
    SELECT 8000000 + n, 1, 'limit', 'key' || n % 1000, n, 1399 FROM generate_series(1, 50000) n;
INSERT INTO limits (key, max_running) SELECT 'key' || n, 3 FROM generate_series(0, 999) n;
INSERT INTO limits (key, max_running) VALUES ('other*', 3);
INSERT INTO permits (task_id, key, attempt, promoted_at)
    SELECT 4000000 + n, 'key' || n % 1000, 0, now() FROM generate_series(1, {LEASED}) n;
INSERT INTO dependencies (task_id, depends_on_id, on_failure, met)
    SELECT 7000000 + n, n / 100, 'cancel', false FROM generate_series(1, 50000) n;
INSERT INTO ended_parents (task_id) VALUES (5);
INSERT INTO tasks (id, job_id, name, queue, kind, payload, priority, requires, max_retries, lane_id,
    score, status, generation, attempt, fencing_token, retry_count, loss_count, result_text,
    started_at, completed_at, assigned_worker_id)
SELECT id, job_id, '', 'default', 'shell', '{{}}', 0, '{{}}', 0, 1, 0, status, 1, 1, 1, 0, 0, '',
    now(), CASE WHEN status IN ('done', 'failed') THEN now() END,
    CASE WHEN status = 'in_progress' THEN 1 END
FROM (
    SELECT n AS id, 1000 + (n - 1) / {A_JOB} AS job_id,
        CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'done' END AS status
    FROM generate_series(1, {FINISHED}) n
    UNION ALL SELECT task_id, job_id, 'pending' FROM waiting WHERE score < {HEAD}
    UNION ALL SELECT task_id, job_id, 'queued' FROM ready
    UNION ALL SELECT task_id, job_id, 'in_progress' FROM leases
    UNION ALL SELECT task_id, job_id, 'pending' FROM blocked
        WHERE reason = 'limit' AND task_id < 8005000
) all_;
"""  # noqa: S608 - numbers of ours
TABLES = (
    "tasks, jobs, waiting, ready, leases, deferred, blocked, dependencies,"
    " ended_parents, attempts, lanes, workers, limits, permits, buckets"
)


@pytest.fixture(scope="module", autouse=True)
def backlog(django_db_setup, django_db_blocker):
    """Many rows in every table, and statistics of them."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {TABLES} CASCADE")
        cursor.execute("INSERT INTO lanes (id, queue, requires) VALUES (1, 'default', '{}')")
        # No check of each foreign key: that would take as long as all the rest.
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(FILL)
        cursor.execute("RESET session_replication_role")
        cursor.execute(f"VACUUM ANALYZE {TABLES}")
        yield
        cursor.execute(f"TRUNCATE {TABLES} CASCADE")


@pytest.fixture
def worker():
    made = register(slots=100)
    Lease.objects.filter(worker_id=100_000).update(worker_id=made.pk)
    return made


def plan(name: str, parameters: dict) -> list[dict]:
    """Every node of the statement's generic plan (see jobs/statements.py), as run."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)[sb]", statements.text(name).decode())))
    numbered = re.sub(
        r"%\((\w+)\)[sb]", lambda m: f"${names.index(m[1]) + 1}", statements.text(name).decode()
    )
    values = SQL(", ").join(Literal(parameters[name]) for name in names)
    types = ", ".join("bool" if parameters[name] is True else "unknown" for name in names)
    raw = connection.connection
    taken = f"({types})" if types else ""
    raw.execute(SQL(f"PREPARE hot_{name} {taken} AS {numbered}"))
    (found,) = raw.execute(
        SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE ")
        + SQL(f"hot_{name}")
        + (SQL("(") + values + SQL(")") if types else SQL(""))
    ).fetchone()
    raw.execute(SQL(f"DEALLOCATE hot_{name}"))
    return list(
        nodes(found[0]["Plan"] if isinstance(found, list) else json.loads(found)[0]["Plan"])
    )


def nodes(node: dict) -> Iterator[dict]:
    yield node
    for child in node.get("Plans", []):
        yield from nodes(child)


def rows_read(found: list[dict], table: str) -> float:
    """Rows that scans of the table brought up, wanted or not."""
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in found
        if node.get("Relation Name") == table and "Scan" in node["Node Type"]
    )


def assert_by_index(found: list[dict], batch: int, *tables: str) -> None:
    for table in tables:
        scans = [n for n in found if n.get("Relation Name") == table and "Scan" in n["Node Type"]]
        assert scans, table
        assert not [n for n in scans if n["Node Type"] == "Seq Scan"], table
        # Once to pick and once to delete.
        assert 0 < rows_read(found, table) <= 2 * batch, table
    for node in found:
        if node["Node Type"] in ("Sort", "Incremental Sort"):
            assert node["Actual Rows"] <= batch
    # Of an index a few levels for each row of each table, and never a backlog's.
    assert found[0]["Shared Hit Blocks"] + found[0]["Shared Read Blocks"] <= 60 * batch


def explained(ask: Callable[[], object]) -> list[list[dict]]:
    """The plans of all that Django's ORM sends meanwhile."""
    plans = []

    def explain(execute, sql, params, many, context):
        if sql.startswith(("SELECT", "UPDATE")):
            execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", params, many, context)
            plans.append(list(nodes(context["cursor"].fetchone()[0][0]["Plan"])))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        ask()
    return plans


def test_promotion_reads_its_batch_by_index():
    starts = {"scores": [-(2**63)], "job_ids": [0], "task_ids": [0]}
    found = plan("promote", {"lanes": [1], "rooms": [100], "batch": 100, **starts})

    assert_by_index(found, 100, "waiting", "tasks")


def test_promotion_under_limits_reads_each_line_and_its_batch_by_index():
    found = plan("candidates", candidates(1_000))

    most = {"waiting": 1_000, "tasks": 1_000, "limits": 1_000, "blocked": 2_000 + 1_000}
    for table, rows in (most | dict.fromkeys(("permits", "ready", "leases"), LEASED)).items():
        assert rows_read(found, table) <= rows, table
    # Lines are not compared with each other, row by row.
    assert not [n for n in found if n.get("CTE Name") == "limited" and n["Actual Loops"] > 2]


def test_what_was_chosen_is_moved_by_index():
    rows = [c for c in statements.rows("candidates", candidates(100)) if c[2]]
    choice = choose(list(map(Contender._make, rows)), {1: 100}, 100)
    found = plan("promote_chosen", chosen(choice))

    assert len(choice.go) == 100
    assert_by_index(found, 100, "waiting", "tasks")
    assert_by_index(found, 100, "blocked")


def candidates(batch: int) -> dict:
    starts = {"scores": [-(2**63)], "job_ids": [0], "task_ids": [0]}
    lines = {"after_key": "", "after_lane": 0, "lines": 2_000, "reach": batch // 2}
    return {"lanes": [1], "rooms": [batch], "batch": batch // 2, **starts, **lines}


def test_permits_are_swept_by_index():
    found = plan("sweep_permits", {})

    assert rows_read(found, "waiting") == 0
    assert rows_read(found, "leases") <= LEASED


def test_recall_reads_what_it_puts_back_by_index():
    found = plan("recall", {"lanes": [1], "scores": [0], "seqs": [READY - 99 - 10_000]})

    assert_by_index(found, 100, "ready")


def test_putting_back_reads_its_tasks_by_index():
    ids = Waiting.objects.order_by("score").values_list("pk", flat=True)[:100]

    assert_by_index(plan("put_back", {"ids": list(ids)}), 100, "waiting", "tasks")


def test_a_claim_reads_its_batch_by_index(worker):
    given = {"worker_id": worker.pk, "boot_id": worker.boot_id, "limit": 10, "grace_seconds": 1}
    room = dict.fromkeys(("room_score", "room_job_id", "room_task_id"), 2**63 - 1)
    more = {"elsewhere_seconds": 5, "lease_seconds": 30}
    found = plan("claim", {**given, **room, **NO_MARKS, **more})

    assert_by_index(found, 10, "ready", "tasks")


def test_whom_to_make_room_for_is_read_by_index(worker):
    other = register("freer", slots=10)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO lanes (id, queue, requires, slots) VALUES (2, 'q', '{}', 4)")
        cursor.execute("UPDATE ready SET lane_id = 2 WHERE seq > -8000")
    given = {"worker_id": other.pk, "limit": 5, "lease_seconds": 30}
    found = plan("room", {**given, **NO_MARKS})

    assert found[0]["Actual Rows"] == 1
    assert_by_index(found, 100, "leases")
    assert_by_index(found, 5, "ready")


def test_ends_are_written_by_index():
    assert_by_index(plan_of_ends(Lease.objects.order_by("pk")[:100]), 100, "leases", "tasks")


def plan_of_ends(leases: Iterable[Lease]) -> list[dict]:
    endings = [Ending(lease.task_id, lease.fencing_token, Outcome.DONE) for lease in leases]
    sent = statements.columns(Ending._fields, endings)
    rules = {
        "max_losses": 3,
        "max_lost_attempts": 30,
        "retry": '{"base_seconds": 1, "ceiling_seconds": 60, "fail_on": []}',
    }
    return plan("end", {**sent, "worker_id": None, "proven": True, **rules})


def test_what_is_due_is_read_by_index():
    assert_by_index(plan("due", {"batch": 100}), 100, "deferred")


def test_cancelling_reads_what_it_cancels_by_index():
    waiting = list(Waiting.objects.filter(score__lt=50).values_list("pk", flat=True))
    ready = list(Ready.objects.filter(seq__lte=50 - 10_000).values_list("pk", flat=True))
    found = plan("cancel", {"ids": sorted(waiting + ready), "running": True})

    assert_by_index(found, 100, "waiting", "ready", "tasks")


def test_prioritising_reads_what_it_moves_by_index():
    waiting = list(Waiting.objects.filter(score__lt=50).values_list("pk", flat=True))
    ready = list(Ready.objects.filter(seq__lte=50 - 10_000).values_list("pk", flat=True))
    ids = sorted(waiting + ready)
    found = plan("prioritise", {"ids": ids, "scores": [7] * len(ids), "priority": 1})

    assert_by_index(found, 100, "waiting", "ready", "tasks")


def test_pausing_a_job_reads_its_live_tasks_by_index():
    job_id = Task.objects.filter(pk__in=Waiting.objects.values("pk")).latest("pk").job_id

    assert_by_index(plan("hold", {"job_id": job_id}), 100, "waiting", "tasks")


def test_resuming_a_job_reads_what_it_held_by_index():
    assert_by_index(plan("let_go", {"job_id": 77}), 100, "blocked")


def test_dependents_are_told_by_index():
    assert_by_index(plan("release", {"limit": 2_000}), 200, "blocked", "dependencies", "jobs")


def test_an_end_that_nobody_awaits_looks_for_no_dependent():
    (lease,) = Lease.objects.order_by("pk")[:1]
    found = plan_of_ends([lease])

    assert not [node for node in found if node.get("Relation Name") == "dependencies"]
    assert not [n for n in found if n.get("Relation Name") == "ended_parents" and n["Actual Rows"]]


def test_retrying_reads_what_it_retries_by_index():
    failed = list(Task.objects.filter(final_status="failed").values_list("pk", flat=True)[:100])

    assert_by_index(plan("retry", {"ids": failed}), 100, "tasks")


def test_settling_asks_an_index_for_each_job():
    running = Task.objects.live().values_list("job_id", flat=True).distinct()[:100]
    found = plan("settle", {"ids": list(running)})

    assert_by_index(found, 100, "tasks", "jobs")


def test_unfinished_jobs_are_read_in_order_by_index():
    (found,) = explained(lambda: queue.settle(after=0, limit=100))

    assert_by_index(found, 100, "jobs")


def test_a_heartbeat_reads_its_own_leases(worker):
    held = dict(Lease.objects.filter(worker_id=worker.pk).values_list("task_id", "fencing_token"))
    plans = explained(lambda: registry.heartbeat(worker.pk, worker.boot_id, held))

    assert len(held) == LEASED / 20
    reads = [found for found in plans if rows_read(found, "leases")]
    assert reads
    for found in reads:
        assert_by_index(found, len(held), "leases")
    for found in plans:
        assert not rows_read(found, "tasks")


def test_the_window_is_measured_without_reading_the_backlog(worker):
    found = plan("window", {"lease_seconds": 30, **NO_MARKS})

    assert rows_read(found, "waiting") <= 1
    assert rows_read(found, "ready") <= READY + 1


@pytest.mark.parametrize("page", [{}, {"final_status": "done"}, {"final_status": "failed"}])
def test_the_page_of_a_job_reads_that_job_alone(page):
    """However many tasks are newer, and of whatever jobs."""
    tasks = Task.objects.of_job(1010).filter(**page).order_by("-pk")[:51]
    (found,) = json.loads(tasks.explain(format="json", analyze=True))

    assert rows_read(list(nodes(found["Plan"])), "tasks") <= A_JOB + 8
    assert len(tasks) == (10 if page.get("final_status") == "failed" else 51)
