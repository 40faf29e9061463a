"""Labels, by which tasks and workers are matched, and the one place for what sizes mean.

A task requires labels (`gpu`, `region=eu`) and sizes (`mem_mb>=2000`), which are rounded up to
powers of two, so that lanes stay few. A worker offers labels; one of `mem_mb=16000` also has every
power of two up to that: `mem_mb>=1`, `mem_mb>=2` and so on to `mem_mb>=8192`. It serves the lanes
all of whose labels it has. So no task gets less than it asked for; but a worker that offers a size
between two powers serves no more than the lower one.
"""

import re
from collections.abc import Iterable, Sequence

# \Z, as $ would let a newline at the end pass.
LABEL = r"^[A-Za-z0-9][A-Za-z0-9._:=/-]*\Z"
NAME_OF_SIZE = "[A-Za-z0-9][A-Za-z0-9._:/-]{0,39}"
MOST_DIGITS = 15
REQUIREMENT = (
    r"^([A-Za-z0-9][A-Za-z0-9._:=/-]*"
    rf"|{NAME_OF_SIZE}>=[1-9][0-9]{{0,{MOST_DIGITS - 1}}})\Z"
)
OFFERED_SIZE = re.compile(rf"({NAME_OF_SIZE})=([0-9]+)")
LARGEST = 1 << (10**MOST_DIGITS).bit_length()
MAX_SLOTS = 1000

# What the tasks of a lane require, and how many slots each takes.
LaneKey = tuple[tuple[str, ...], int]
PLAIN: LaneKey = ((), 1)


def lane_key(requires: Sequence[str], slots: int) -> LaneKey:
    return (tuple(sorted(set(map(rounded, requires)))) if requires else ()), slots


def rounded(label: str) -> str:
    """A required size with the next power of two; any other label as it is."""
    name, is_size, least = label.partition(">=")
    return f"{name}>={1 << (int(least) - 1).bit_length()}" if is_size else label


def expanded(offered: Iterable[str]) -> list[str]:
    """All labels that a worker has which offers these."""
    labels = set(offered)
    for size in filter(None, map(OFFERED_SIZE.fullmatch, [*labels])):
        name, most = size[1], min(int(size[2]), LARGEST)
        labels |= {f"{name}>={1 << power}" for power in range(most.bit_length())}
    return sorted(labels)


def offered(capabilities: Iterable[str]) -> list[str]:
    """Of all labels that a worker has, those that it offers."""
    return [label for label in capabilities if ">=" not in label]


def size_offered(name: str, capabilities: Iterable[str]) -> int:
    """The largest size of this name that is offered; 0: none is."""
    sizes = filter(None, map(OFFERED_SIZE.fullmatch, capabilities))
    return max((int(size[2]) for size in sizes if size[1] == name), default=0)
