"""Takes on a task's niceness and resource limits, then becomes its program.

The guard must not change these for itself, and the standard library offers only code between
fork and exec for it. Usage:
guard_exec.py {"nice": N, "rlimits": {"AS": bytes}, "unset": [names]} program args...
Exit status as of nice(1): 125 the options, 126 cannot be run, 127 not found.
"""

import json
import os
import resource
import signal
import sys
from typing import Any


def main(options: dict[str, Any], argv: list[str]) -> int:
    """Returns an exit status only when the program could not be started."""
    status = 125
    try:
        os.nice(options["nice"])
        for name, limit in options["rlimits"].items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (limit, limit))
        for name in options["unset"]:
            os.environ.pop(name, None)
        # Python ignores these two, and what is ignored stays so in the program.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        status = 126
        os.execvp(argv[0], argv)  # noqa: S606  no shell is the point
    except (OSError, ValueError, AttributeError) as error:
        print(f"cannot start {argv[0]}: {error}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else status


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))
