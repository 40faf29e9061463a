"""Shows a run to a person."""

from typing import Any

from rich.console import Console
from rich.table import Table

BREACHES_SHOWN = 20


def show(figures: dict[str, Any], console: Console) -> None:
    console.print(_of_faults(figures["faults"]))
    jobs, tasks, checks = figures["jobs"], figures["tasks"], figures["checks"]
    tries = ", ".join(f"{n} {what}" for what, n in jobs["unacknowledged_tries"].items()) or "none"
    rows = {
        "jobs": _pairs(jobs, "submitted", "acknowledged", "held", "stored"),
        "tries without 201": tries,
        "tasks": _pairs(tasks, *tasks),
        "dependencies": str(figures["edges"]),
        "firings of schedules": _pairs(figures["firings"], *sorted(figures["firings"])),
        "attempts": _pairs(figures["attempts"], *sorted(figures["attempts"])),
        "a client's worst pause": _seconds(figures["worst_pause_seconds"]),
        "settled after the last fault": _seconds(figures["settled_seconds"]),
        "breaches by check": _pairs(checks, *checks),
        "breaches": str(len(figures["breaches"])),
    }
    table = Table(show_header=False)
    for row in rows.items():
        table.add_row(*row)
    console.print(table)
    for breach in figures["breaches"][:BREACHES_SHOWN]:
        console.print(f"BREACH {breach['check']}: {breach['subject']}")
        for row in breach["rows"][:6]:
            console.print(f"    {row}")
    if (more := len(figures["breaches"]) - BREACHES_SHOWN) > 0:
        console.print(f"... and {more} more (--json has them all)")


def _of_faults(faults: dict[str, Any]) -> Table:
    table = Table("fault", "injected", "skipped", "recovery p50", "p95")
    for column in table.columns[1:]:
        column.justify = "right"
    for kind, of in faults.items():
        times = (of["recovery_p50_seconds"], of["recovery_p95_seconds"])
        counts = (of["injected"], of["skipped"] or "")
        table.add_row(kind, *map(str, counts), *map(_seconds, times))
    return table


def _pairs(counts: dict[str, int], *names: str) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in names)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
