"""What a worker and its server say to each other. The agent knows no more of the server."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from jobs.specs import Claimed, Ending, LogPart
from workers.registry import Beat, Registration


class Transport(Protocol):
    """Each call raises Unreachable when there is no answer, and a Refusal when it is refused.

    The agent calls from two threads: its own and its heartbeat's.
    """

    def deliver(
        self, name: str, endings: Sequence[Ending], parts: Sequence[LogPart]
    ) -> dict[int, str]:
        """Reports what a former boot of the worker `name` left; answers as `exchange` does."""

    def register(self, registration: Registration) -> None:
        """Announces the worker; from then on `conf()` has its server's terms. Raises NameTaken."""

    def exchange(
        self, endings: Sequence[Ending], limit: int
    ) -> tuple[dict[int, str], list[Claimed]]:
        """Reports ended attempts and leases tasks of up to `limit` slots to the worker.

        Answers each reported task's new state (one missing was not held), and what was claimed:
        nothing by a boot that was replaced, which may raise Superseded.
        """

    def heartbeat(self, held: Mapping[int, int], *, draining: bool) -> Beat:
        """Renews the leases in `held` ({task id: fencing token}). Raises Superseded."""

    def log(self, parts: Sequence[LogPart]) -> None:
        """Stores output of tasks the worker holds. May raise Superseded."""

    def leave(self) -> None:
        """Says that the worker ends in good order."""

    def listen(self) -> None:
        """Has the server tell of work: a worker that holds nothing says so before each sleep."""

    def listening_seconds(self) -> float | None:
        """How long it need not ask, as its server tells of work and takes it for alive; or None.

        From any thread.
        """

    def told(self) -> tuple[float, Beat] | None:
        """What the server answered to `listen`, once: as a heartbeat sent then (`boottime`)."""

    def fileno(self) -> int | None:
        """A descriptor that is readable when there may be something to do, if there is one."""

    def heard(self) -> bool:
        """Takes note of what made it readable: whether a task's cancel was asked for."""
