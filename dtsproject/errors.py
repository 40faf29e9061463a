"""Errors that carry their own HTTP status and code (RFC 9457); one handler renders them."""

from collections.abc import Mapping
from typing import Any


class Unreachable(Exception):
    """The other side does not answer, for now. What was asked may or may not have happened.

    `retry_after_seconds` is how long it asked to be left alone, if it did.
    """

    def __init__(self, reason: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class Refusal(Exception):
    """A request that is understood and refused. Subclasses live beside what raises them.

    `detail` says, to a person, what is wrong and how to mend it; `members` are extra members of
    the problem document.
    """

    status = 409
    code = "refused"
    title = "Refused"
    retry_after_seconds: int | None = None

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members


class InvalidQuery(Refusal):
    """Query parameters that are unknown or not valid: `faults` is {name: what is wrong}."""

    status, code, title = 400, "invalid_query", "The query parameters are not valid"

    def __init__(self, faults: Mapping[str, str]) -> None:
        errors = [{"parameter": name, "detail": fault} for name, fault in faults.items()]
        super().__init__("; ".join(f"{n}: {f}" for n, f in faults.items()), errors=errors)
