"""DTS's own settings, typed, with defaults and units.

`settings.DTS` holds only what differs from the defaults below: keys in capitals, from a
settings module (`DTS = {"POLICY": "ops.policies.Fifo"}`) or the environment (`DTS_POLICY`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string


@dataclass(frozen=True, kw_only=True)
class Conf:
    # Who may use the API without a token: off; loopback (the server must then be bound to a
    # loopback address); trusted-network (something else keeps strangers out).
    anonymous_access: str = "off"
    policy: str = "scheduling.policies.Priority"

    # A worker that has not renewed for lease_seconds loses its tasks to others; its guard has
    # killed their process trees by then.
    lease_seconds: float = 30.0
    heartbeat_seconds: float = 5.0
    kill_grace_seconds: float = 5.0
    drain_seconds: float = 30.0
    max_losses: int = 3
    # Names of the worker's own environment variables that its tasks get although they look like
    # secrets of DTS (DATABASE_URL, SECRET_KEY, PG*, DTS_*, DJANGO_*); comma separated.
    pass_environment: str = ""

    # A statement of a service that takes longer is given up; with no sign five seconds later
    # either, the database counts as away.
    database_timeout_seconds: float = 15.0

    scheduler_interval_seconds: float = 0.25
    recovery_interval_seconds: float = 2.0
    worker_poll_seconds: float = 1.0
    promote_batch: int = 1000
    backoff_base_seconds: float = 1.0
    backoff_ceiling_seconds: float = 3600.0

    # How often one token, user or address may call in a minute, at the clients' and at the
    # workers' door; 0: as often as it likes. Each process of the server counts for itself.
    client_calls_per_minute: int = 0
    worker_calls_per_minute: int = 0

    # Of a job in one JSON text, and of one that comes line by line (NDJSON).
    max_tasks_per_job: int = 100_000
    max_tasks_per_stream: int = 1_000_000
    # Submits are refused while as many tasks are pending.
    max_backlog: int = 1_000_000
    # Submits over HTTP are refused while the database takes longer to store one (2,000 tasks of
    # one, if it has more).
    max_database_delay_seconds: float = 5.0
    result_limit_bytes: int = 8 * 1024
    log_limit_bytes: int = 1024 * 1024
    # How long an Idempotency-Key of a submit is remembered.
    idempotency_hours: int = 24
    retention_days: int = 30
    log_retention_days: int = 7


@cache
def conf() -> Conf:
    """The settings in force. Raises ImproperlyConfigured for a key that does not exist."""
    known = {field.name.upper() for field in fields(Conf)}
    if unknown := sorted(set(settings.DTS) - known):
        raise ImproperlyConfigured(f"DTS has no setting {', '.join(unknown)}")
    return Conf(**{key.lower(): value for key, value in settings.DTS.items()})


def adopt(terms: Mapping[str, Any]) -> None:
    """Puts these values over this process's own: what its server told a worker to keep to."""
    settings.DTS = {**settings.DTS, **{name.upper(): value for name, value in terms.items()}}
    conf.cache_clear()


@receiver(setting_changed)
def _forget(*, setting: str, **_: object) -> None:
    """Settings change under tests only (override_settings)."""
    if setting == "DTS":
        conf.cache_clear()


def load(dotted_path: str) -> Any:
    """An instance of the class that a setting names by its dotted path."""
    return import_string(dotted_path)()


def from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    """The DTS settings that the environment names (`DTS_LEASE_SECONDS=10`), typed.

    Raises ImproperlyConfigured where a value is not of its setting's type.
    """
    found: dict[str, Any] = {}
    for name, default in asdict(Conf()).items():
        key, kind = name.upper(), type(default)
        text = environ.get(f"DTS_{key}")
        if text is None:
            continue
        try:
            found[key] = kind(text)
        except ValueError:
            reason = f"DTS_{key} must be {kind.__name__}, not {text!r}"
            raise ImproperlyConfigured(reason) from None
    return found
