"""Errors that carry their own HTTP status and code (RFC 9457); one handler renders them."""

from typing import Any


class Unreachable(Exception):
    """The other side does not answer, for now. What was asked may or may not have happened."""


class Refusal(Exception):
    """A request that is understood and refused. Subclasses live beside what raises them.

    `detail` says, to a person, what is wrong and how to mend it; `members` are extra members of
    the problem document.
    """

    status = 409
    code = "refused"
    title = "Refused"

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members
