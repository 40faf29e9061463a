"""The variables of a task's environment, of which some are secret.

A secret one is `{"secret": true, "value": "..."}` in the payload. Its value goes to the task's own
process, by the worker that holds the task, and is shown to nobody: whoever shows a payload shows
what `masked` makes of it, and who shows a whole job, as a schedule's template, `masked_job`.
"""

from collections.abc import Mapping
from typing import Any

MASK = "***"


def variables(payload: Mapping[str, Any]) -> dict[str, str]:
    """Name and value of each, as the task's process gets them."""
    env = payload.get("env")
    return {name: value_of(given) for name, given in env.items()} if env else {}


def value_of(given: str | Mapping[str, Any]) -> str:
    return given if isinstance(given, str) else given["value"]


def masked(payload: Any) -> Any:
    """The payload as people may see it."""
    env = payload.get("env") if isinstance(payload, dict) else None
    if not env:
        return payload
    shown = {
        name: given if isinstance(given, str) else {**given, "value": MASK}
        for name, given in env.items()
    }
    return {**payload, "env": shown}


def masked_job(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job as it is submitted, and as people may see it."""
    tasks = [{**task, "payload": masked(task.get("payload"))} for task in job.get("tasks", ())]
    return {**job, "tasks": tasks}
