"""An acknowledged submit survives what PostgreSQL survives: here, its death by SIGKILL."""

import os
import subprocess
import sys

import psycopg

from tests.dtsproject.clusters import PROJECT


def manage(cluster, *arguments) -> str:
    environment = {**os.environ, "DATABASE_URL": cluster.url(), "DTS_LOCAL": "1"}
    environment["DJANGO_SETTINGS_MODULE"] = "dtsproject.settings"
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_an_acknowledged_submit_survives_the_servers_death(cluster):
    server = cluster.start_child()
    manage(cluster, "migrate", "--verbosity", "0")
    acknowledged = [int(manage(cluster, "submit", f"echo {n}")) for n in range(3)]

    server.kill()
    server.wait()
    cluster.start_child()

    with psycopg.connect(cluster.url()) as connection:
        jobs = connection.execute("SELECT id FROM jobs ORDER BY id").fetchall()
        waiting = connection.execute("SELECT job_id FROM waiting ORDER BY job_id").fetchall()
        settings = connection.execute(
            "SELECT current_setting('fsync'), current_setting('synchronous_commit')"
        ).fetchone()
    assert [job for (job,) in jobs] == [job for (job,) in waiting] == acknowledged
    assert settings == ("on", "on")
