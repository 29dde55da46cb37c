"""A bar: what was promised, what was read, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import geometric_mean

from harness.record import Row

# No case of a grid below these, of torch.nn's time over ours; what "auto" gives to torch comes out at 1.
FUSED_WORST, AUTO_WORST = 0.97, 0.99


@dataclass
class Bar:
    """`limit` None: a figure that is shown and not judged."""

    what: str
    figure: float
    limit: float | None = None
    at_most: bool = False

    @property
    def holds(self) -> bool:
        return self.figure <= self.limit if self.at_most else self.figure >= self.limit

    def line(self, judged: bool = True) -> str:
        """Verdict, figure and limit. judged: False for rows that are too few for a verdict; the limit is then
        shown all the same."""
        if self.limit is None:
            return f"  --    {self.figure:8.3f}            {self.what}"
        verdict = ("pass" if self.holds else "FAIL") if judged else "--"
        sign = "<=" if self.at_most else ">="
        return f"  {verdict:4}  {self.figure:8.3f}  {sign} {self.limit:<6g} {self.what}"


def select(rows: Iterable[Row], **wanted) -> list[Row]:
    """Rows whose columns equal `wanted`; a set or tuple lists several values; a function judges the value."""

    def matches(entry: Row) -> bool:
        for name, value in wanted.items():
            have = getattr(entry, name)
            if callable(value):
                fits = value(have)
            else:
                fits = have in value if isinstance(value, (tuple, set, list)) else have == value
            if not fits:
                return False
        return True

    return [entry for entry in rows if matches(entry)]


def ratios(rows: Iterable[Row], ours: str = "fused") -> list[float]:
    """Times of the rows over fusegen's in the form `ours`, where both were read."""
    found = (getattr(entry, f"ratio_{ours}") for entry in rows)
    return [value for value in found if value != ""]


def mean_and_worst(
    what: str, values: list[float], mean: float | None, worst: float | None = None
) -> list[Bar]:
    """Geometric mean and smallest of `values` against their limits; nothing if there are no values."""
    if not values:
        return []
    made = [Bar(f"{what}, geometric mean of {len(values)}", geometric_mean(values), mean)]
    if worst is not None:
        made.append(Bar(f"{what}, worst", min(values), worst))
    return made
