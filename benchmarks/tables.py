"""From the figures of rounds to medians, ratios and tables. No input or output here."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

Value = float | str | None
LEGEND_WIDTH = 100


def middle(values: Sequence[float | None]) -> float | None:
    """The median of what was measured; None if nothing was."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def ratio(values: Sequence[float | None], references: Sequence[float | None]) -> float | None:
    """The median of the ratios of the same round.

    Rounds in which either was not measured, or the reference is 0, do not count.
    """
    pairs = zip(values, references, strict=False)
    return middle([v / r if v is not None and r else None for v, r in pairs])


def percent_less(value: float | None, reference: float | None) -> float | None:
    """By how many percent `value` is below `reference`."""
    return None if value is None or not reference else 100 * (1 - value / reference)


def percentile(values: Sequence[float], part: float) -> float | None:
    """The value below which `part` (0 to 1) of the values lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else None


@dataclass
class Table:
    head: Sequence[str]
    rows: list[Sequence[Value]] = field(default_factory=list)
    title: str = ""
    legend: str = ""

    def markdown(self) -> str:
        words = [any(isinstance(row[n], str) for row in self.rows) for n in range(len(self.head))]
        rule = "|".join("---" if word else "---:" for word in words)
        lines = [f"| {' | '.join(self.head)} |", f"|{rule}|"]
        lines += [f"| {' | '.join(map(shown, row))} |" for row in self.rows]
        legend = ["", self.legend] if self.legend else []
        return "\n".join([*([f"**{self.title}**", ""] if self.title else []), *lines, *legend])

    def text(self) -> str:
        """For a terminal: columns aligned."""
        grid = [list(self.head), *[[shown(value) for value in row] for row in self.rows]]
        widths = [max(len(row[n]) for row in grid) for n in range(len(self.head))]
        lines = [
            "  ".join(
                cell.rjust(width) if n else cell.ljust(width)
                for n, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in grid
        ]
        legend = textwrap.wrap(self.legend, LEGEND_WIDTH)
        return "\n".join([*([self.title] if self.title else []), *lines, *legend])


@dataclass
class Section:
    """One benchmark's part of the report."""

    name: str
    title: str
    method: str
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def shown(value: Value) -> str:
    """Three figures, or whole thousands: more would be noise."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"
