"""Files of one's own that a scenario follows from: their content is part of the scenario.

A scenario that is asked for by name, path or object is *pinned*: it gets the fingerprint of what its files say. Its
hash follows from that, not from where they lie, and whoever reads them later refuses other content.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from dpem_env.scenarios.schema import TAGS, WITH_FILES, Scenario, Section
from dpem_env.support.errors import DataError
from dpem_env.support.files import LARGEST_TEXT, require_regular


def pinned(scenario: Scenario) -> Scenario:
    """The scenario with the content of its files; of those that cannot be read, it is told when they are needed."""
    found = {}
    for name in WITH_FILES:
        section: Section = getattr(scenario, name)
        if getattr(section, f"{name}_content", "") is None and (content := _content(section)):
            found[name] = section.model_copy(update={f"{name}_content": content})
    return scenario.model_copy(update=found) if found else scenario


def require_content(section: Section, expected: str | None) -> None:
    """DataError if the files of a section no longer say what they said when the scenario was pinned."""
    found = None if expected is None else _content(section)
    if found is not None and found != expected:
        raise DataError(
            f"{' and '.join(map(repr, paths(section)))} changed: the content is {found}, in the scenario {expected}; "
            "load the scenario again, or remove that from it"
        )


def beside(data: dict[str, Any], folder: str | os.PathLike[str]) -> None:
    """Have relative paths in the data of a scenario, read from a file, lead from the folder that it lies in."""
    for name in WITH_FILES:
        section = data.get(name)
        for field in {field for kind in TAGS[name].values() for field in kind.files}:
            if isinstance(section, dict) and isinstance(path := section.get(field), str) and path:
                section[field] = os.path.join(folder, path)


def paths(section: Section) -> list[str]:
    """Of the files that a section names."""
    return [path for path in (getattr(section, field) for field in section.files) if path is not None]


def _content(section: Section) -> str | None:
    """Changes with what is in the files; None if there are none, or one cannot be read."""
    digest = hashlib.sha256()
    try:
        for path in paths(section):
            require_regular(path)
            with open(path, "rb") as stream:
                digest.update(hashlib.sha256(stream.read(LARGEST_TEXT + 1)).digest())
    except (OSError, ValueError):
        return None
    return digest.hexdigest()[:16] if paths(section) else None
