"""The scheduler's two verbs that cross: what waits is queued, and put back when overtaken."""

from collections.abc import Iterable, Mapping

from django.db import connection, transaction

from jobs import statements
from jobs.choice import Choice, Contender, Key, choose

HEAD = (-(2**63), 0, 0)  # before any key of `waiting`
# "dts" and "promote" as two numbers for pg_try_advisory_xact_lock(int, int): promotion is alone.
PROMOTION_LOCK = (0x647473, 1)
# Lines looked at by one statement; the next goes on from there.
LINES_AT_ONCE = 2_000
# How often to look again, further, when what was met had to be put aside.
MOST_LOOKS = 5
MOSTLY = 1 / 2  # of a batch: then the next tick is soon enough


class Lines:
    """What a promoter remembers of the lines of limited keys: up to which it came (`after`);
    whether its last promotion let go of anything in them (`moved`), or left more to do
    (`unfinished`)."""

    FIRST = ("", 0)

    def __init__(self) -> None:
        self.after = self.FIRST
        self.moved = self.unfinished = False


def hold_up_promotion() -> None:
    """Until the transaction ends. Waits for the one that runs. A statement of its own: what follows
    sees all that the last holder committed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", PROMOTION_LOCK)


def promote(
    rooms: Mapping[int, int],
    *,
    batch: int,
    marks: Mapping[int, tuple[int, ...]] | None = None,
    overtaken: Mapping[int, tuple[int, int]] | None = None,
    lines: Lines | None = None,
) -> dict[int, tuple[int, Key]]:
    """Queues the most urgent waiting tasks: up to `rooms[lane]` of each lane, `batch` in all.

    `marks` are keys (score, job id, task id) after which to look. What is `overtaken` (see
    `recall`) makes that much more room first, and stands behind what overtook it; if it is queued
    again at once, as all is but one for each that overtook, its state never changed. `lines` are
    given where there are limits, by a caller that has the promotion lock. Returns, for each lane
    in which any were promoted, how many and up to which key the lane was read (empty: no further).
    """
    if not overtaken:
        return _promote(rooms, batch, marks or {}, lines)
    with transaction.atomic(savepoint=False):
        recalled = _recall(overtaken)
        # Not below 0: another scheduler with a wider window would promote again what goes out.
        rooms = {lane: max(0, room) + len(recalled.get(lane, ())) for lane, room in rooms.items()}
        marks = {lane: mark for lane, mark in (marks or {}).items() if lane not in recalled}
        found = _promote(rooms, batch, marks, lines)
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
    rooms: Mapping[int, int], batch: int, marks: Mapping[int, Key], lines: Lines | None
) -> dict[int, tuple[int, Key]]:
    rooms = {lane: room for lane, room in rooms.items() if room > 0}
    if lines is not None:
        return _promote_limited(rooms, batch, marks, lines)
    if not rooms:
        return {}
    parameters = _heads(rooms, batch, marks)
    return {
        lane: (promoted, tuple(last))
        for lane, promoted, *last in statements.rows("promote", parameters)
    }


def _heads(rooms: Mapping[int, int], batch: int, marks: Mapping[int, Key]) -> dict:
    starts = [marks.get(lane, HEAD) for lane in rooms]
    return {
        "lanes": list(rooms),
        "rooms": list(rooms.values()),
        "batch": batch,
        **statements.columns(("scores", "job_ids", "task_ids"), starts),
    }


def _promote_limited(
    rooms: dict[int, int], batch: int, marks: Mapping[int, Key], lines: Lines
) -> dict[int, tuple[int, Key]]:
    promoted, reached = dict.fromkeys(rooms, 0), dict(marks)
    lines.moved, lines.unfinished, reach = False, bool(rooms), 0
    for _ in range(MOST_LOOKS if rooms else 0):
        choice = choose(_contenders(rooms, batch, reached, reach, lines), rooms, batch)
        _apply(choice)
        reached |= choice.reached
        lines.moved |= not all(c.waits for c in choice.go)
        for chosen in choice.go:
            promoted[chosen.lane] += 1
            rooms[chosen.lane] -= 1
        rooms = {lane: room for lane, room in rooms.items() if room > 0}
        # What stood behind those put aside may go, too: that is looked at, a batch further.
        lines.unfinished, reach = bool(choice.aside and rooms), batch
        if not lines.unfinished or len(choice.go) >= MOSTLY * batch:
            break
    new = {lane: key for lane, key in reached.items() if key != marks.get(lane)}
    found = {lane: (promoted[lane], new.get(lane, ())) for lane in promoted}
    return {lane: (n, key) for lane, (n, key) in found.items() if n or key}


def _contenders(
    rooms: Mapping[int, int], batch: int, marks: Mapping[int, Key], reach: int, lines: Lines
) -> list[Contender]:
    after_key, after_lane = lines.after
    parameters = {
        **_heads(rooms, batch, marks),
        "reach": reach,
        "after_key": after_key,
        "after_lane": after_lane,
        "lines": LINES_AT_ONCE,
    }
    found = list(map(Contender._make, statements.rows("candidates", parameters)))
    stopped = [c for c in found if c.task_id is None]
    lines.after = (stopped[0].key or "", stopped[0].lane) if stopped else Lines.FIRST
    return [c for c in found if c.task_id is not None]


def _apply(choice: Choice) -> None:
    if choice.go or choice.aside:
        statements.execute("promote_chosen", chosen(choice))


def chosen(choice: Choice) -> dict:
    """The parameters of jobs/sql/promote_chosen.sql."""
    names = ("task_id", "lane", "score", "job_id", "key")
    columns = statements.columns(Contender._fields, choice.go)
    return {
        **{name: columns[name] for name in names},
        "heads": _ids(c for c in (*choice.go, *choice.aside) if c.waits),
        "freed": _ids(c for c in choice.go if not c.waits),
        "aside": _ids(choice.aside),
        "aside_keys": [c.key for c in choice.aside],
        "rated": list(choice.tokens),
        "tokens": list(choice.tokens.values()),
        "at": (choice.go or choice.aside)[0].at,
    }


def _ids(contenders: Iterable[Contender]) -> list[int]:
    return [c.task_id for c in contenders]


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
