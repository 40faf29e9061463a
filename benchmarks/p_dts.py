"""DTS as a peer of the queue benchmark harness: put this file beside its peers' and run it.

DTS_HOME names a checkout of DTS with its .venv; by default the one this file is in. The worker
runs with everything out of the box, but for `--executor inline` where the tasks are functions.
"""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ.get("DTS_HOME", Path(__file__).resolve().parent.parent))
PYTHON = HOME / ".venv" / "bin" / "python"
JOB_TASKS = 10_000

if Path(sys.prefix) != HOME / ".venv":
    os.execv(PYTHON, [str(PYTHON), os.path.abspath(__file__), *sys.argv[1:]])  # noqa: S606 - no shell is the point

sys.path[:0] = [str(HOME), *os.environ.get("PYTHONPATH", "").split(":")]
os.environ["PYTHONPATH"] = ":".join(sys.path[:3])

import benchlib  # noqa: E402 - the harness's own

os.environ |= {
    "DATABASE_URL": benchlib.DSN,
    "DTS_LOCAL": "1",
    "DJANGO_SETTINGS_MODULE": "dtsproject.settings",
    "DTS_STATE_DIR": f"{os.path.dirname(benchlib.MARK)}/dts",
}
info = {
    "kind": "pg",
    # Not of tasks: beside a million finished rows that is read from end to end for each look.
    "pending": "SELECT EXISTS(SELECT FROM leases UNION ALL SELECT FROM ready "
    "UNION ALL SELECT FROM waiting UNION ALL SELECT FROM deferred UNION ALL SELECT FROM blocked)",
    "default": "run_worker --executor inline",
    "best": "run_worker --executor inline",
    "table": "tasks",
    "table2": "attempts",
    "finished": """
        WITH job AS (
            INSERT INTO jobs (name, queue, labels, submitted_by, finished_at)
            VALUES ('history', 'default', '{}', '', now()) RETURNING id
        ), done AS (
            INSERT INTO tasks (job_id, name, queue, kind, payload, priority, requires, max_retries,
                lane_id, score, status, generation, attempt, fencing_token, retry_count, loss_count,
                result_text, started_at, completed_at)
            SELECT job.id, '', 'default', 'python', '{"function": "benchlib.mark"}', 0, '{}', 0,
                1, 0, 'done', 1, 1, 1, 0, 0, 'null', now(), now()
            FROM job, generate_series(1, 1000000)
            RETURNING id
        )
        INSERT INTO attempts (task_id, generation, number, fencing_token, started_at, ended_at,
            outcome, error, output)
        SELECT id, 1, 1, 1, now(), now(), 'done', '', '' FROM done
        """,
}


def manage(*arguments):
    return [str(PYTHON), str(HOME / "manage.py"), *arguments]


def django():
    import django

    django.setup()


def setup():
    subprocess.run(manage("migrate", "--verbosity", "0"), check=True)
    subprocess.run(manage("run_recovery", "--once"), check=True)


def specs(n, kind):
    from jobs.specs import TaskSpec

    if kind == "shell":
        return [TaskSpec(payload={"cmd": "true"}) for _ in range(n)]
    return [TaskSpec(kind="python", payload={"function": "benchlib.mark"}) for _ in range(n)]


def bulk(n, kind):
    django()
    from jobs import queue
    from jobs.specs import JobSpec

    def submit():
        for start in range(0, n, JOB_TASKS):
            queue.submit(JobSpec(name="bulk", tasks=specs(min(JOB_TASKS, n - start), kind)))

    benchlib.timed(submit, n)


def single(n):
    django()
    from jobs import queue
    from jobs.specs import JobSpec

    def submit():
        for _ in range(n):
            queue.submit(JobSpec(name="single", tasks=specs(1, "noop")))

    benchlib.timed(submit, n)


def pace(seconds, step):
    django()
    from jobs import queue
    from jobs.specs import JobSpec, TaskSpec

    def submit(now):
        payload = {"function": "benchlib.mark", "args": [now]}
        queue.submit(JobSpec(name="pace", tasks=[TaskSpec(kind="python", payload=payload)]))

    benchlib.paced(seconds, step, submit)


def worker(profile):
    """A worker as this process; the first one also starts the scheduler."""
    lock = os.open(f"{os.path.dirname(benchlib.MARK)}/dts-scheduler", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        subprocess.Popen(manage("run_scheduler"), pass_fds=[lock])
    except BlockingIOError:
        pass
    name = f"bench-{os.getpid()}"
    if profile != "shell":  # the command itself, as it is started out of the box
        command = manage("run_worker", "--name", name, "--executor", "inline")
        os.execv(command[0], command)  # noqa: S606 - no shell is the point
    django()
    from django.core.management import call_command

    mark_endings()
    call_command("run_worker", name=name)


def mark_endings():
    """Tells the harness of each shell task that ended: its process cannot."""
    from workers import executor

    ending = executor.ending

    def marked(*arguments):
        benchlib.mark()
        return ending(*arguments)

    executor.ending = marked


if __name__ == "__main__":
    benchlib.main(info, setup, bulk, single, pace, worker)
