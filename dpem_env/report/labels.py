"""How names and numbers are shown, in tables, pages and pictures."""

from __future__ import annotations

from typing import Any, NamedTuple

LONGEST = 60  # characters of a name in a picture


class Quantity(NamedTuple):
    """What is measured, and how it is told."""

    name: str
    label: str
    decimals: int
    unit: str = ""

    @property
    def title(self) -> str:
        """The label with the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def estimate(self, interval: dict[str, float | None] | None) -> str:
        """Mean ± half the width of its interval {value, low, high}; "-" for what is unknown, no ± without interval."""
        if interval is None or interval["value"] is None:
            return "-"
        low, high = interval["low"], interval["high"]
        half = "" if low is None or high is None else f" ± {(high - low) / 2:.{self.decimals}f}"
        return f"{interval['value']:.{self.decimals}f}{half}"

    def change(self, interval: Any) -> str:
        """A difference (value, low, high) with its sign and interval."""
        value, low, high = interval
        return f"{value:+.{self.decimals}f} [{low:+.{self.decimals}f}, {high:+.{self.decimals}f}]"


def shown(name: str) -> str:
    """A name as pictures show it: no mathematics between dollars, the middle of a long one left out."""
    text = name.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair has no glyph
    short = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"
    return short.replace("$", r"\$")
