"""How often somebody may call, at each of the two doors (`..._calls_per_minute`).

Each process of the server counts for itself, in memory: all of its processes together let through
as many times more. A brake for clients run wild, no guard against attackers.
"""

from typing import Any

from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle

from dtsproject.conf import conf
from jobs.authentication import access


class Door(SimpleRateThrottle):
    def get_rate(self) -> str | None:
        most = getattr(conf(), f"{self.scope}_calls_per_minute")
        return f"{most}/min" if most else None

    def get_cache_key(self, request: Request, view: Any) -> str:
        """Of the token or user; where there is none, of the address."""
        caller = access(request).identity if request.auth else "anonymous"
        if caller == "anonymous":
            caller = request.META.get("REMOTE_ADDR", "")
        return f"door-{self.scope}-{caller.replace(' ', '-')}"


class Clients(Door):
    scope = "client"


class Workers(Door):
    scope = "worker"
