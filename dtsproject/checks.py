"""`manage.py check` refuses settings that cannot work."""

from typing import Any

from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured

from dtsproject.conf import conf, load

TAG = "dts"
ANONYMOUS = ("off", "loopback", "trusted-network")


@register(TAG)
def dts_settings(**kwargs: Any) -> list[CheckMessage]:
    try:
        dts = conf()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="dts.E001")]
    found: list[CheckMessage] = []
    # The guard must begin to kill a tenth and a grace before the lease ends (workers/agent.py),
    # and two heartbeats must fit into what is left, so that one may be lost.
    if 0.9 * dts.lease_seconds - dts.kill_grace_seconds < 2 * dts.heartbeat_seconds:
        found.append(
            Error(
                "DTS_LEASE_SECONDS is too short: 0.9 of it must exceed DTS_KILL_GRACE_SECONDS and "
                "two DTS_HEARTBEAT_SECONDS together",
                id="dts.E002",
            )
        )
    if dts.anonymous_access not in ANONYMOUS:
        found.append(
            Error(f"DTS_ANONYMOUS_ACCESS must be one of {', '.join(ANONYMOUS)}", id="dts.E003")
        )
    try:
        load(dts.policy).score  # noqa: B018 - a policy must have it
    except (ImportError, AttributeError, TypeError) as error:
        found.append(Error(f"DTS_POLICY cannot be used: {error}", id="dts.E004"))
    return found
