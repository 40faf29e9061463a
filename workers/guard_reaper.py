"""How a process tree is found dead.

The guard is child subreaper: whatever a dead leader leaves behind, in whatever session or group,
becomes the guard's own child, an orphan. So the leader's group is killed, then each orphan of
the tree, whose children become orphans in turn, until a look at the guard's children shows none.
A dead leader stays a zombie until then: its pid, which is also the id of its session and group,
cannot be given to anybody else.

Whose is an orphan? Its session tells, else the mark in its environment. One without either (it
called setsid and cleared its environment) may be of any tree that was there when it was born,
and dies with the first of those that ends.
"""

import itertools
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from workers.guard_proc import children, environ
from workers.guard_tree import Tree


class Orphan(NamedTuple):
    pid: int
    owner: Tree | None
    is_undecided: bool = False  # amid exec: whose it is will show in a moment


class Reaper:
    """The trees that are not yet confirmed dead, by key and by their leader's pid.

    `mark` begins the value of DTS_TREE in the environment of every task, before its key.
    """

    def __init__(self, mark: str) -> None:
        self.trees: dict[int, Tree] = {}
        self.leaders: dict[int, Tree] = {}
        self._entry = f"\0DTS_TREE={mark}.".encode()

    def add(self, tree: Tree) -> None:
        taken = {other.slot for other in self.trees.values()}
        tree.slot = next(slot for slot in itertools.count() if slot not in taken)
        self.trees[tree.key] = self.leaders[tree.pid] = tree

    def collect(self) -> Iterator[dict[str, Any]]:
        """Kills what outlived its leader; yields a report for each tree now wholly dead.

        Raises OSError where /proc cannot be read; then nothing more is known than before.
        """
        for tree in self.trees.values():
            tree.look_at_start()
            if tree.ended_at is None and tree.leader_is_dead() and not self._has_grace(tree):
                tree.note_end()
        pids = self._living_orphans()
        dying = [tree for tree in self.trees.values() if tree.ended_at is not None]
        orphans = [self._orphan(pid) for pid in pids] if dying else []
        for tree in dying:
            if not _kill_orphans(tree, orphans):
                yield self._remove(tree)

    def _has_grace(self, tree: Tree) -> bool:
        """Whether the leader died of a TERM for which its group still has time."""
        if not tree.in_grace():
            return False
        return any(os.getpgid(pid) == tree.pid for pid in self._living_orphans())

    def _living_orphans(self) -> set[int]:
        """Reaps dead orphans, and looks again for what those left, until none is dead."""
        while True:
            orphans = children() - self.leaders.keys()
            dead = [pid for pid in orphans if os.waitpid(pid, os.WNOHANG)[0]]
            if not dead:
                return orphans

    def _orphan(self, pid: int) -> Orphan:
        if tree := self.leaders.get(os.getsid(pid)):
            return Orphan(pid, tree)
        entries = environ(pid)
        if entries is None:
            return Orphan(pid, None, is_undecided=True)
        key = entries.partition(self._entry)[2].partition(b"\0")[0]
        return Orphan(pid, self.trees.get(int(key)) if key.isdigit() else None)

    def _remove(self, tree: Tree) -> dict[str, Any]:
        ended = tree.reap()
        del self.trees[tree.key], self.leaders[tree.pid]
        return ended


def _kill_orphans(tree: Tree, orphans: list[Orphan]) -> bool:
    """Kills those that are or may be of a tree whose leader is dead; False when there are none."""
    its = [it for it in orphans if it.owner is tree or (not it.owner and tree.may_own(it.pid))]
    for orphan in its:
        if not orphan.is_undecided:
            tree.kill_orphan(orphan.pid)
    tree.kill_group()
    return bool(its)
