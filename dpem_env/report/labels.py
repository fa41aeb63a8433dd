"""Pictures; matplotlib is imported only when one is drawn."""

from __future__ import annotations

LONGEST = 60  # characters of a name in a picture


def shown(name: str) -> str:
    """A name as pictures show it: no mathematics between dollars, the middle of a long one left out."""
    text = name.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair has no glyph
    short = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"
    return short.replace("$", r"\$")
