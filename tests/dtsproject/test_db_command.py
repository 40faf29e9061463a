"""`manage.py db`, run as a person runs it."""

import subprocess
import sys

import pytest

from dtsproject.embedded import binaries
from tests.dtsproject.clusters import PROJECT


@pytest.fixture(autouse=True)
def _own_cluster(folder, monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("DTS_DATA_DIR", str(folder / "postgres"))
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "dtsproject.settings")


def db(*arguments, **options):
    command = [sys.executable, "manage.py", "db", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.run(command, cwd=PROJECT, check=False, **pipes, **options)


def test_start_status_psql_stop():
    assert db("status").returncode == 3
    assert db("start").returncode == 0
    assert "is running" in db("start").stdout
    status = db("status")
    assert (status.returncode, status.stdout[:11]) == (0, "PostgreSQL ")
    assert db("psql", "-Atc", "SELECT current_user").stdout == "dts\n"
    assert db("psql", "-At", input="SELECT 6 * 7;").stdout == "42\n"
    assert db("stop").returncode == 0
    assert db("status").returncode == 3


def test_backup_is_whole_private_and_never_overwrites(folder):
    db("start")
    db("psql", "-c", "CREATE TABLE kept AS SELECT 7 AS value")
    target = folder / "kept.dump"
    assert str(target) in db("backup", str(target)).stdout
    assert target.stat().st_mode & 0o077 == 0
    script = subprocess.check_output([binaries.program("pg_restore"), "-f", "-", target])
    assert b"COPY public.kept" in script
    again = db("backup", str(target))
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)


def test_a_failed_backup_leaves_nothing(folder):
    answer = db("backup", str(folder / "none.dump"))
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr
    assert not list(folder.glob("*none.dump*"))


@pytest.mark.parametrize("verb", ["start", "stop"])
def test_leaves_the_server_of_a_database_url_alone(verb, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://u@127.0.0.1:1/x")
    monkeypatch.setenv("DTS_LOCAL", "1")
    answer = db(verb)
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
    assert "DATABASE_URL" in answer.stderr
