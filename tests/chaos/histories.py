"""The events that histories to be judged are made of, and ways to change them."""

from dtsproject.chaos.checks import check
from dtsproject.chaos.history import History


def moved(at, before, after, token, **more):
    move = {"task": 1, "generation": 1, "before": before, "after": after, "token": token}
    return {"event": "moved", "at": at, **move, **more}


def lived(at, until, token, **more):
    life = {"task": 1, "token": token, "attempt": token, "worker": "worker-1"}
    return {"event": "lived", "at": at, **life, "until": until, "ended": True, "code": 0, **more}


def attempt(at, token, outcome, **more):
    recorded = {"task": 1, "generation": 1, "token": token, "outcome": outcome}
    return {"event": "attempt", "at": at, **recorded, "error": "", "worker": 1, **more}


def breaches(events) -> list[str]:
    return [it.check for it in check(History(events))]


def change(events, event, number=0, **changes):
    """The events with the fields of one of them, the `number`th of its kind, changed."""
    found = [it for it in events if it["event"] == event][number]
    return [it | changes if it is found else it for it in events]


def without(events, event, number=0):
    found = [it for it in events if it["event"] == event][number]
    return [it for it in events if it is not found]
