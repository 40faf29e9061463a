"""What every task of a chaos run runs: it writes its own life to a file outside of the database.

Started as `command.py <kind> <seconds>`; standard library only, so that it starts at once. A line
is `<what> <CLOCK_BOOTTIME> <task> <attempt> <fencing token> <worker> <exit code>`, one write to a
file opened with O_APPEND; `what` is start, beat (every 50 ms while it lives) or end. The start is
its tree's, which may be long before this runs: a machine can freeze in between.
"""

import os
import signal
import sys
import time

BEAT_SECONDS = 0.05
TRIES = 2  # of `flaky` that it takes
WHO = " ".join(
    os.environ[name] for name in ("DTS_TASK_ID", "DTS_ATTEMPT", "DTS_FENCING_TOKEN", "CHAOS_WORKER")
)
FILE = os.open(os.environ["CHAOS_STAMPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def born_at() -> float:
    """When the leader of this session was started, by CLOCK_BOOTTIME; at most a tick later."""
    with open(f"/proc/{os.getsid(0)}/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    return (ticks + 1) / os.sysconf("SC_CLK_TCK")


def stamp(what: str, code: int = 0, at: float | None = None) -> None:
    at = at or time.clock_gettime(time.CLOCK_BOOTTIME)
    os.write(FILE, f"{what} {at:.6f} {WHO} {code}\n".encode())


def live(seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(BEAT_SECONDS, left))
        stamp("beat")


def leave_a_daemon(seconds: float) -> None:
    if os.fork() == 0:
        os.setsid()
        live(seconds)
        os._exit(0)


def main(kind: str, seconds: float) -> int:
    stamp("start", at=min(born_at(), time.clock_gettime(time.CLOCK_BOOTTIME)))
    stamp("beat")
    if kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if kind == "daemon":
        leave_a_daemon(seconds)
    else:
        live(seconds)
    failed = kind == "fails" or (kind == "flaky" and int(os.environ["DTS_ATTEMPT"]) < TRIES)
    stamp("end", code := 3 if failed else 0)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
