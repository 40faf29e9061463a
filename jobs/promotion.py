"""The scheduler's two verbs that cross: what waits is queued, and put back when overtaken."""

from collections.abc import Mapping

from django.db import transaction

from jobs import statements

HEAD = (-(2**63), 0, 0)  # before any key of `waiting`


def promote(
    rooms: Mapping[int, int],
    *,
    batch: int,
    marks: Mapping[int, tuple[int, ...]] | None = None,
    overtaken: Mapping[int, tuple[int, int]] | None = None,
) -> dict[int, tuple[int, tuple[int, ...]]]:
    """Queues the most urgent waiting tasks: up to `rooms[lane]` of each lane, `batch` in all.

    `marks` are keys (score, job id, task id) after which to look. What is `overtaken` (see
    `recall`) makes that much more room first, and stands behind what overtook it; if it is queued
    again at once, as all is but one for each that overtook, its state never changed. Returns, for
    each lane in which any were promoted, how many and the key of the last.
    """
    if not overtaken:
        return _promote(rooms, batch, marks or {})
    with transaction.atomic(savepoint=False):
        recalled = _recall(overtaken)
        # Not below 0: another scheduler with a wider window would promote again what goes out.
        rooms = {lane: max(0, room) + len(recalled.get(lane, ())) for lane, room in rooms.items()}
        marks = {lane: mark for lane, mark in (marks or {}).items() if lane not in recalled}
        found = _promote(rooms, batch, marks)
        _put_back(recalled)
    return found


def recall(overtaken: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """Puts queued tasks back to pending, score kept: of each lane those less urgent than its
    score in `overtaken`, from its dispatch sequence there on. Returns how many of each lane."""
    with transaction.atomic(savepoint=False):
        recalled = _recall(overtaken)
        _put_back(recalled)
    return {lane: len(ids) for lane, ids in recalled.items()}


def _promote(
    rooms: Mapping[int, int], batch: int, marks: Mapping[int, tuple[int, ...]]
) -> dict[int, tuple[int, tuple[int, ...]]]:
    rooms = {lane: room for lane, room in rooms.items() if room > 0}
    if not rooms:
        return {}
    starts = [marks.get(lane, HEAD) for lane in rooms]
    parameters = {
        "lanes": list(rooms),
        "rooms": list(rooms.values()),
        "batch": batch,
        **statements.columns(("scores", "job_ids", "task_ids"), starts),
    }
    return {
        lane: (promoted, tuple(last))
        for lane, promoted, *last in statements.rows("promote", parameters)
    }


def _recall(overtaken: Mapping[int, tuple[int, int]]) -> dict[int, list[int]]:
    """Moves narrow rows only: `_put_back` is to follow in the same transaction."""
    parameters = {
        "lanes": list(overtaken),
        **statements.columns(("scores", "seqs"), overtaken.values()),
    }
    recalled: dict[int, list[int]] = {}
    for lane, task_id in statements.rows("recall", parameters):
        recalled.setdefault(lane, []).append(task_id)
    return recalled


def _put_back(recalled: Mapping[int, list[int]]) -> None:
    if ids := [task_id for of_lane in recalled.values() for task_id in of_lane]:
        statements.changed("put_back", {"ids": ids})
