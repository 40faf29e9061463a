"""What schemathesis loads beside its configuration."""

import math
from collections.abc import Iterator
from typing import Any

import schemathesis
from schemathesis import GenerationMode

JOB_FILTERS = ("name", "queue", "created_after")


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """No schema says what a text of lines holds; tests of their own have jobs sent that way."""
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            operation.get("requestBody", {}).get("content", {}).pop("application/x-ndjson", None)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Keeps what is meant to be valid to the rules that no schema can say; what is meant to be
    refused stays as it is."""
    meta = case.meta
    if meta is None or meta.generation.mode != GenerationMode.POSITIVE:
        return
    keep_to_rules = {
        "POST /api/v1/jobs": submit,
        "POST /api/v1/operations": operate,
        "PUT /api/v1/limits/{key}": limit,
    }
    rule = keep_to_rules.get(context.operation.label)
    if rule and isinstance(case.body, dict):
        rule(case.body)


def submit(job: dict[str, Any]) -> None:
    depend(job)
    for task in job["tasks"]:
        agree(task.get("retry") or {})


def agree(rules: dict[str, Any]) -> None:
    """A failure is in one list of retry rules alone, and the ceiling no lower than the base."""
    allowed = rules.get("retry_on", [])
    if left := [failure for failure in rules.pop("fail_on", []) if failure not in allowed]:
        rules["fail_on"] = left
    if rules.get("ceiling_seconds", math.inf) < rules.get("base_seconds", 0):
        del rules["ceiling_seconds"]


def depend(job: dict[str, Any]) -> None:
    """Keys are once in a job, and tasks wait for those before them, and once for each."""
    keys: list[str] = []
    for task in job["tasks"]:
        if "depends_on" in task:
            task["depends_on"] = list(once_each(task["depends_on"], list(keys)))
        if (key := task.get("key")) in keys:
            del task["key"]
        elif key is not None:
            keys.append(key)


def once_each(parents: list[Any], keys: list[str]) -> Iterator[Any]:
    """The dependencies, those on tasks of this job on the tasks of these keys, one after the other;
    more there are not."""
    tasks: set[float] = set()
    for parent in parents:
        name = parent if not isinstance(parent, dict) else parent.get("key", parent.get("task"))
        if isinstance(name, str):
            if keys:
                key = keys.pop()
                yield {**parent, "key": key} if isinstance(parent, dict) else key
        elif name not in tasks:
            tasks.add(name)
            yield parent


def operate(operation: dict[str, Any]) -> None:
    """A priority goes with prioritise, and the names of filters follow from the target."""
    if operation["action"] != "prioritise":
        operation.pop("priority", None)
    else:
        operation.setdefault("priority", 5)
    if operation["target"] == "jobs":
        given = operation["filter"].items()
        operation["filter"] = {name: value for name, value in given if name in JOB_FILTERS}


def limit(limits: dict[str, Any]) -> None:
    """A rate is two numbers, and some limit there is."""
    if limits.get("rate_count") is None or limits.get("rate_seconds") is None:
        limits |= {"rate_count": None, "rate_seconds": None}
        limits["max_running"] = limits.get("max_running") or 1
