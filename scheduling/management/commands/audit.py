import json
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser
from rich.console import Console
from rich.progress import Progress

from dtsproject.command import Command as BaseCommand
from scheduling.invariants import INVARIANTS, Finding, look, snapshot


class Command(BaseCommand):
    help = (
        "Prove the invariants of the queue on this database, at one moment and without writing. "
        "Exit status 1 if any is broken; warnings alone leave it 0."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the findings as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        began = time.monotonic()
        found = [finding for finding in look_at_all() if finding.breaches]
        seconds = round(time.monotonic() - began, 2)
        broken = [finding for finding in found if not finding.invariant.warning]
        if options["json"]:
            self.stdout.write(as_json(found, seconds))
        else:
            for finding in found:
                self.stdout.write(as_text(finding))
            self.stdout.write(
                f"{len(INVARIANTS) - len(found)} of {len(INVARIANTS)} invariants hold ({seconds} s)"
            )
        if broken:
            names = ", ".join(finding.invariant.name for finding in broken)
            raise CommandError(f"broken: {names}", returncode=1)


def look_at_all() -> list[Finding]:
    """Every invariant, at one moment, with a bar on standard error if that is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task("", total=len(INVARIANTS))
        with snapshot():
            findings = []
            for invariant in INVARIANTS:
                bar.update(shown, description=invariant.name)
                findings.append(look(invariant))
                bar.advance(shown)
    return findings


def as_text(finding: Finding) -> str:
    invariant, count, ids = finding
    more = ", ..." if count > len(ids) else ""
    return (
        f"{'warning' if invariant.warning else 'broken'}: {invariant.name}: {invariant.meaning}\n"
        f"  not so for {count:,}: {invariant.of} {', '.join(map(str, ids))}{more}\n"
        f"  {invariant.remedy}"
    )


def as_json(found: list[Finding], seconds: float) -> str:
    findings = [
        {
            "invariant": invariant.name,
            "meaning": invariant.meaning,
            "warning": invariant.warning,
            "count": count,
            "of": invariant.of,
            "ids": ids,
            "remedy": invariant.remedy,
        }
        for invariant, count, ids in found
    ]
    return json.dumps(
        {
            "ok": all(finding["warning"] for finding in findings),
            "checked": [invariant.name for invariant in INVARIANTS],
            "findings": findings,
            "seconds": seconds,
        },
        indent=2,
    )
