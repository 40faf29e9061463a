"""A DTS on a primary and its standby, which one URL names both."""

import subprocess
from urllib.parse import quote

import psycopg

from dtsproject.embedded import Cluster
from tests.chaos.installation import Installation
from tests.helpers import wait_until

STANDBY = "standby"


class Pair(Installation):
    def __init__(self, **environment: str) -> None:
        super().__init__(**environment)
        self.standby = Cluster(self.home / STANDBY)
        second = quote(str(self.standby.socket_dir), safe="")
        self.environment["DATABASE_URL"] = (
            f"{self.cluster.url()},{second}&target_session_attrs=read-write"
        )

    def start_standby(self) -> None:
        """Copies the running primary and follows it from there on."""
        folder = self.standby.folder
        programs = self.cluster.folder.prepare()
        with folder.locked():
            (folder.path / "password").write_text(self.cluster.folder.password())
            folder.data.mkdir(mode=0o700)
            folder.account.own(folder.data)
        source = f"{self.cluster.url()}&application_name={STANDBY}"
        copy = [
            programs / "pg_basebackup",
            "-D",
            folder.data,
            "-R",
            "-N",
            "-c",
            "fast",
            "-d",
            source,
        ]
        subprocess.run(copy, check=True, **folder.account.options())
        self.standby.start_child()
        wait_until(lambda: "streaming" in self.standbys())

    def wait_for_standby(self) -> None:
        """Lets each commit wait for the standby."""
        change(self.cluster, "synchronous_standby_names", STANDBY)
        wait_until(lambda: self.standbys() == {"streaming": "sync"})

    def standbys(self) -> dict[str, str]:
        """Of each state, whether commits wait for the standby in it (`sync`) or not (`async`)."""
        return dict(self.rows("SELECT state, sync_state FROM pg_stat_replication"))

    def promote(self) -> None:
        """Makes the standby a primary, whose commits wait for nobody."""
        execute(self.standby, "SELECT pg_promote()")
        change(self.standby, "synchronous_standby_names", "")

    def end(self) -> None:
        self.standby.stop()
        super().end()


def change(cluster: Cluster, name: str, value: str) -> None:
    """Changes a setting of a running PostgreSQL, as an operator does."""
    execute(cluster, f"ALTER SYSTEM SET {name} = '{value}'")
    execute(cluster, "SELECT pg_reload_conf()")


def execute(cluster: Cluster, statement: str) -> None:
    with psycopg.connect(cluster.url(), application_name="test", autocommit=True) as connection:
        connection.execute(statement)
