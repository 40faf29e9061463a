"""Requests whose answers wait without a thread: what the server and those who answer agree on.

A server that can do it gives each request `environ[PARK]`. An application calls that, in place of
yielding a body, with what is to be called with the Parked request once its thread is free.
"""

from typing import Protocol

PARK = "dts.park"


class Parked(Protocol):
    """A request whose status and headers are settled, and whose body is still to come."""

    def must_end(self) -> bool:
        """Whether its server is about to stop, and waits for the answer."""

    def answer(self, body: bytes) -> None:
        """Sends all of the body; once, from any thread."""
