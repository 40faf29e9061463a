"""A schedule's job: a body as for POST jobs, in whose strings {parameters} stand for its time."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rest_framework.exceptions import APIException, ErrorDetail, ValidationError

from dtsproject.errors import Refusal
from jobs.api.submissions import job_spec
from jobs.specs import JobSpec
from scheduling.cron import zone_of
from scheduling.models import Schedule

# It is made within the scheduler's loop, where all others wait for it.
MOST_TASKS = 1_000
# {name}, but not the shell's ${name}; {{name}} is {name} itself.
PARAMETER = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|(?<!\$)\{([A-Za-z_]\w*)\}")
MEANINGS = {
    "scheduled_at": "the time in ISO 8601: 2030-01-31T08:00:00+01:00",
    "date": "its date: 2030-01-31",
    "time": "its time of day: 08:00",
    "timestamp": "in seconds since 1970: 1896073200",
    "schedule": "the schedule's name",
}


class BadTemplate(Refusal):
    status, code, title = 422, "invalid_template", "The template is not valid"


def parameters(name: str, scheduled_at: datetime, time_zone: str) -> dict[str, str]:
    local = scheduled_at.astimezone(zone_of(time_zone))
    return {
        "scheduled_at": local.isoformat(timespec="seconds"),
        "date": f"{local:%Y-%m-%d}",
        "time": f"{local:%H:%M}",
        "timestamp": str(int(local.timestamp())),
        "schedule": name,
    }


def job_of(template: Any, name: str, scheduled_at: datetime, time_zone: str) -> JobSpec:
    """The job of the schedule `name` for this time, labelled with the schedule.

    Raises ValidationError, as a submit of it would, and for unknown parameters.
    """
    spec = job_spec(filled(template, parameters(name, scheduled_at, time_zone)))
    if len(spec.tasks) > MOST_TASKS:
        fault = f"A schedule's job has at most {MOST_TASKS:,} tasks."
        raise ValidationError({"tasks": [ErrorDetail(fault, code="max_length")]})
    spec.labels.setdefault("schedule", name)
    return spec


def job_or_refusal(schedule: Schedule, scheduled_at: datetime) -> JobSpec:
    """`job_of`, but raises BadTemplate, which names the first fault by its place."""
    try:
        return job_of(schedule.template, schedule.name, scheduled_at, schedule.time_zone)
    except APIException as error:
        from dtsproject import (
            problems,  # and all that views need: too much for a loop without faults
        )

        fault = next(problems.faults(error.detail, "#/template"))
        raise BadTemplate(f"{fault['pointer']}: {fault['detail']}") from None


def filled(template: Any, given: Mapping[str, str]) -> Any:
    """The template with its parameters replaced. Raises ValidationError with their place."""
    if isinstance(template, str):
        return PARAMETER.sub(lambda match: _value(match, given), template)
    if isinstance(template, Mapping):
        return _each(dict(template), template.items(), given)
    if isinstance(template, list):
        return _each(list(template), enumerate(template), given)
    return template


def _each(copy: Any, items: Any, given: Mapping[str, str]) -> Any:
    errors = {}
    for key, value in items:
        try:
            copy[key] = filled(value, given)
        except ValidationError as error:
            errors[key] = error.detail
    if errors:
        raise ValidationError(errors)
    return copy


def _value(match: re.Match[str], given: Mapping[str, str]) -> str:
    literal, name = match.groups()
    if literal:
        return f"{{{literal}}}"
    if name not in given:
        raise ValidationError(
            f"There is no parameter {{{name}}}; there are {', '.join(MEANINGS)}. Write "
            f"{{{{{name}}}}} for {{{name}}} itself.",
            code="unknown_parameter",
        )
    return given[name]
