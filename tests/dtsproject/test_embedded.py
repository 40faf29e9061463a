"""The embedded PostgreSQL, started, stopped and killed for real."""

from pathlib import Path

import psycopg
import pytest

from dtsproject.embedded import Cluster, EmbeddedError
from tests.dtsproject.clusters import SLEEP, START_CHILD, process, python, query, wait_until


def test_starts_cold_stops_and_keeps_its_data(cluster):
    assert not cluster.running()
    cluster.start_child()
    assert cluster.running()
    query(cluster, "CREATE TABLE kept AS SELECT 7 AS value")
    cluster.stop()
    assert not cluster.running()
    assert not cluster.socket_dir.exists()
    with pytest.raises(psycopg.OperationalError):
        query(cluster, "SELECT 1")
    cluster.start_child()
    assert query(cluster, "SELECT value FROM kept") == (7,)


def test_is_durable_and_listens_on_no_port(cluster):
    cluster.start_child()
    names = ["fsync", "full_page_writes", "synchronous_commit", "data_checksums"]
    shown = query(cluster, "SELECT " + ", ".join(f"current_setting('{name}')" for name in names))
    assert shown == ("on", "on", "on", "on")
    assert query(cluster, "SELECT current_setting('listen_addresses')") == ("",)
    assert query(
        cluster, "SELECT pg_encoding_to_char(encoding), current_user FROM pg_database"
    ) == (
        "UTF8",
        "dts",
    )


def test_asks_for_the_password(cluster):
    cluster.start_child()
    for wrong in ("wrong", "wrong again"):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            query(cluster, "SELECT 1", password=wrong)


def test_ends_with_its_parent_and_keeps_what_was_committed(cluster):
    with python(cluster.folder.path, START_CHILD, SLEEP) as parent:
        server = int(parent.stdout.readline())
        query(cluster, "CREATE TABLE kept AS SELECT 7 AS value")
        parent.kill()
    wait_until(lambda: not Path(f"/proc/{server}").exists())
    assert not cluster.running()
    assert cluster.start_child() is not None
    assert query(cluster, "SELECT value FROM kept") == (7,)


def test_ends_with_its_parent_when_started_in_a_thread(cluster):
    """The kernel would watch the thread, which ends long before the process does."""
    in_thread = "import threading; t = threading.Thread(target=cluster.start_child); t.start()"
    answer = "t.join(); print(cluster.running(), flush=True)"
    with python(cluster.folder.path, in_thread, answer, SLEEP) as parent:
        assert parent.stdout.readline() == "True\n"
        assert query(cluster, "SELECT 1") == (1,)
        parent.kill()
    wait_until(lambda: not cluster.running())


def test_a_daemon_outlives_its_parent(cluster):
    with python(cluster.folder.path, "cluster.start_daemon()") as parent:
        assert parent.wait(timeout=60) == 0
    assert query(cluster, "SELECT 1") == (1,)
    assert not cluster.start_daemon()
    cluster.stop()
    assert not cluster.running()


def test_recovers_when_the_server_itself_is_killed(cluster):
    server = cluster.start_child()
    query(cluster, "CREATE TABLE kept AS SELECT 7 AS value")
    server.kill()
    server.wait()
    assert not cluster.running()
    cluster.start_child()
    assert query(cluster, "SELECT value FROM kept") == (7,)


def test_starts_though_another_program_has_the_pid_left_behind(cluster):
    server = cluster.start_child()
    server.kill()
    server.wait()
    pid_file = cluster.folder.data / "postmaster.pid"
    _, rest = pid_file.read_text().split("\n", 1)
    with process("sleep", "600", **cluster.folder.account.options()) as other:
        pid_file.write_text(f"{other.pid}\n{rest}")
        cluster.start_child()
        assert other.poll() is None
        cluster.stop()
        assert other.poll() is None


def test_two_starts_at_once_give_one_server(cluster):
    path = cluster.folder.path
    with (
        python(path, START_CHILD, SLEEP) as one,
        python(path, START_CHILD, SLEEP) as other,
    ):
        answers = [parent.stdout.readline().strip() for parent in (one, other)]
        assert sorted(answer == "None" for answer in answers) == [False, True]
        assert query(cluster, "SELECT 1") == (1,)


def test_two_first_urls_agree_on_one_password(folder):
    urls = {Cluster(folder / "postgres").url() for _ in range(2)}
    assert len(urls) == 1
    assert [path.name for path in (folder / "postgres").iterdir()] == ["password"]


def test_a_long_path_works(folder):
    cluster = Cluster(folder / ("long" * 40) / "postgres")
    assert len(str(cluster.folder.path)) > 150
    cluster.start_child()
    assert query(cluster, "SELECT 1") == (1,)


def test_a_killed_initdb_is_begun_again(cluster):
    (cluster.folder.path / "data.new" / "base").mkdir(parents=True)
    cluster.folder.path.chmod(0o711)
    cluster.start_child()
    assert query(cluster, "SELECT 1") == (1,)


def test_refuses_data_of_another_version(cluster):
    cluster.ensure()
    (cluster.folder.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 12, but .*db backup old\.dump"):
        cluster.start_child()


def test_tells_why_it_does_not_start(cluster):
    cluster.ensure()
    with (cluster.folder.data / "postgresql.conf").open("a") as settings:
        settings.write("nonsense = 1\n")
    with pytest.raises(EmbeddedError, match="nonsense"):
        cluster.start_child()
