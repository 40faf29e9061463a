"""Runs a Python task in its process: `python -m workers.handlers`, its payload on stdin.

The function's return value goes, as JSON, to the descriptor DTS_RESULT_FD; what it prints is
captured as any task's output. An exception ends the process with its traceback and status 1.
"""

import json
import os
import sys
from functools import cache
from importlib import import_module
from typing import Any


@cache
def resolve(dotted_path: str) -> Any:
    """The callable at `package.module.function`. Raises ImportError or AttributeError."""
    module, _, name = dotted_path.rpartition(".")
    return getattr(import_module(module), name)


def main() -> None:
    payload = json.load(sys.stdin)
    if "DATABASE_URL" in os.environ:  # passed on purpose: the function may use the models
        import django

        django.setup()
    result = resolve(payload["function"])(*payload.get("args", []), **payload.get("kwargs", {}))
    with open(int(os.environ["DTS_RESULT_FD"]), "w") as answer:
        json.dump(result, answer)


if __name__ == "__main__":
    main()
