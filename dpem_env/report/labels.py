"""How names and numbers are shown, in tables, pages and pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

LONGEST = 60  # characters of a name in a picture


class Quantity(NamedTuple):
    """What is measured, and how it is told."""

    name: str
    label: str
    decimals: int
    unit: str = ""
    possible: tuple[float, float] = (-math.inf, math.inf)  # values

    @property
    def title(self) -> str:
        """The label with the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True, eq=False)
class Estimate:
    """A quantity's value with its 95 % interval, if known.

    As text: "{x}" is the value ± half the width of the interval, "{x:mean}" the value alone, "{x:interval}" the value
    and the interval, "{x:change}" both with their signs; other formats are those of numbers.
    """

    quantity: Quantity
    value: float
    low: float | None = None
    high: float | None = None

    def __float__(self) -> float:
        return self.value

    def __format__(self, spec: str) -> str:
        number = f".{self.quantity.decimals}f"
        low, high = self.low, self.high
        unknown = low is None or high is None or math.isnan(high - low)
        if spec == "mean" or (spec == "" and unknown):
            return f"{self.value:{number}}"
        if spec == "":
            return f"{self.value:{number}} ± {(high - low) / 2:{number}}"  # type: ignore[operator]
        if spec in ("interval", "change"):
            number = f"+{number}" if spec == "change" else number
            return f"{self.value:{number}}" + ("" if unknown else f" [{low:{number}}, {high:{number}}]")
        return format(self.value, spec)


def shown(name: str) -> str:
    """A name as pictures show it: no mathematics between dollars, the middle of a long one left out."""
    text = name.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair has no glyph
    short = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"
    return short.replace("$", r"\$")
