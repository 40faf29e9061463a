"""docs/benchmarks.md: the head anew, and the sections that were measured; the others stay."""

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import django

from benchmarks.bench import Bench
from benchmarks.install import PACKAGE_JSON, PINS
from benchmarks.peers import ROOT
from benchmarks.tables import Section, Table

PATH = ROOT / "docs" / "benchmarks.md"
HEADING = re.compile(r"^## (?=\S)", re.MULTILINE)
HEAD = """# Benchmarks

Written by `make bench`, which runs DTS beside other queues and beside bare SQL, all on one
PostgreSQL. `make bench NAME=drain QUICK=1` runs one of them, smaller; `WRITE=1` puts its figures
here. Compare ratios, not rates: they are taken within the same round, on the same machine.

{surroundings}

## Method and caveats

- In turns: a round of each peer, then the next; medians of the rounds. "Of bare SQL" is the median
  of the ratios to the reference of the same round.
- The peers share the machine's cores with PostgreSQL and with their clients.
- Nobody's own counters are trusted: each task leaves a mark of fixed length, its start and its
  submit, in an append-only file. A slow drain is cut, and its rate is what was done by then.
- Each peer runs with the settings below, the best its documentation and trials gave. The reference
  is not a product: it is what a Python worker could reach with none around it.

{peers}
"""
METHOD = "Method and caveats"


def surroundings(bench: Bench) -> str:
    """The machine, the versions and the settings, as lines of Markdown."""
    settings = bench.database.settings()
    pins = re.findall(r"^[\w-]+==\S+", PINS.read_text(), re.MULTILINE)
    node = re.findall(r'"([\w-]+)": "(\d[\w.-]*)"', PACKAGE_JSON.read_text())
    stated = ", ".join(f"{name}={value}" for name, value in settings.items())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return "\n".join(
        [
            f"- Machine: {os.cpu_count()} cores ({cpu_model()}), {memory:.0f} GiB, "
            f"{platform.system()} {platform.release().split('-')[0]}",
            f"- PostgreSQL: {stated}; the same for all, over the same kind of connection",
            f"- DTS: Python {platform.python_version()}, Django {django.__version__}, "
            f"psycopg {version('psycopg')}",
            f"- Rivals: {', '.join([*pins, *('=='.join(found) for found in node)])}",
        ]
    )


def cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", path.read_text(), re.M) if path.exists() else None
    return found[1] if found else platform.machine()


def as_text(section: Section) -> str:
    tables = "\n\n".join(table.text() for table in section.tables)
    return f"\n{section.title}\n\n{tables}\n"


def as_markdown(section: Section, measured: str) -> str:
    """The section without its `## `; `measured` says when and how."""
    parts = [f"{section.title}", section.method, *[table.markdown() for table in section.tables]]
    return "\n\n".join([*parts, f"({measured}; `make bench NAME={section.name}`)"])


def write(section: Section, bench: Bench, surroundings: str) -> None:
    PATH.parent.mkdir(exist_ok=True)
    before = PATH.read_text() if PATH.exists() else ""
    PATH.write_text(
        merged(before, as_markdown(section, measured(bench)), head(bench, surroundings))
    )


def head(bench: Bench, surroundings: str) -> str:
    table = Table(["peer", "settings", "what it does less for a task than DTS"])
    for peer in bench.peers:
        table.rows.append([peer.title, bench.info(peer)["best"], peer.less or "-"])
    return HEAD.format(surroundings=surroundings, peers=table.markdown())


def merged(before: str, section: str, head: str) -> str:
    """The document `before` under a new head, with the section put in or in its old one's place."""
    found = {part.split("\n", 1)[0]: part.strip() for part in HEADING.split(before)[1:]}
    found.pop(METHOD, None)
    found[section.split("\n", 1)[0]] = section.strip()
    return "\n".join([head.strip(), *[f"\n## {part}" for part in found.values()], ""])


def measured(bench: Bench) -> str:
    """`3 rounds, 2026-01-31, at abc1234`; if the sizes were smaller, how; and who is missing."""
    parts = ["1 round" if bench.rounds == 1 else f"{bench.rounds} rounds"]
    if bench.quick:
        parts.append("QUICK: about a tenth of the sizes named")
    if bench.most_tasks:
        parts.append(f"never more than {bench.most_tasks:,} tasks")
    parts.append(f"{datetime.now(UTC):%Y-%m-%d}")
    if git := shutil.which("git"):
        command = [git, "rev-parse", "--short", "HEAD"]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        parts += [f"at {found.stdout.strip()}"] * (found.returncode == 0)
    return "; ".join([", ".join(parts), *bench.notes])
