"""`python -m benchmarks [NAME ...]`: runs benchmarks, prints tables, writes docs/benchmarks.md."""

import argparse
import signal
import sys
from collections.abc import Sequence

from benchmarks import bench, report
from benchmarks.errors import BenchError
from benchmarks.peers import NAMES, PEERS, REFERENCE
from benchmarks.suite import SUITE
from dtsproject.embedded import EmbeddedError

MINUTES, QUICK_MINUTES = 3.0, 0.25


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="make bench", description=__doc__)
    made.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SUITE)}; none: all")
    made.add_argument("--quick", action="store_true", help="one round of a tenth the size")
    made.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    made.add_argument("--minutes", type=positive, help=f"of churn; default {MINUTES:g}")
    made.add_argument("--peers", default=",".join(NAMES), help="default: %(default)s")
    made.add_argument("--n", type=int, help="at most so many tasks in each step")
    return made


def positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("give a number above 0")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 if a measurement failed, 2 for what cannot be run."""
    made = parser()
    asked = made.parse_args(arguments)
    wanted = asked.peers.split(",")
    if unknown := [*set(asked.names) - SUITE.keys(), *set(wanted) - set(NAMES)]:
        made.error(f"there is no {unknown[0]!r}; see --help")
    if REFERENCE not in wanted:
        made.error(f"--peers must have {REFERENCE}: every ratio is to it")
    if asked.n is not None and asked.n < 1:
        made.error("--n must be at least 1")
    # Also where a shell started us with SIGINT ignored, which our children would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return measure(asked, wanted)
    except (BenchError, EmbeddedError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def measure(asked: argparse.Namespace, wanted: Sequence[str]) -> int:
    peers = [peer for peer in PEERS if peer.name in wanted]
    minutes = asked.minutes or (QUICK_MINUTES if asked.quick else MINUTES)
    with bench.opened(peers, quick=asked.quick, minutes=minutes, most_tasks=asked.n) as ready:
        surroundings = report.surroundings(ready)
        for name, run in SUITE.items():
            if asked.names and name not in asked.names:
                continue
            section = run(ready)
            print(report.as_text(section), flush=True)
            # After each, so that an interrupted run loses only what it had not measured.
            if asked.write or not (asked.names or asked.quick or asked.n):
                report.write(section, ready, surroundings)
        for note in ready.notes:
            print(f"note: {note}")
        return int(ready.failed)


if __name__ == "__main__":
    sys.exit(main())
