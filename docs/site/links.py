"""Where links of the pages lead on the site: to its own pages, or to the repository for all that lies outside docs/.

Pages are written to be read in the repository, so a link is a path from the file that it stands in.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# A link or an image; or code, in which nothing is a link.
LINK = re.compile(r"^```.*?^```|``.+?``|`[^`]+`|(!?)(\[[^\[\]]*\])\(([^()\s]+)\)", re.DOTALL | re.MULTILINE)
IMAGES = (".png", ".gif", ".svg")
# What has a page of the site that was made of it.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "dpem_env/envs/parallel.py": "environment.md",
    "dpem_env/physics.py": "formulas.md",
    "dpem_env/scenarios/shipped.py": "scenarios/index.md",
    "baselines/dpem_baselines": "baselines.md",
}


def led(text: str, origin: str, page: str, repository: str, show: Callable[[str], str]) -> str:
    """The Markdown of file `origin` (from the root) as `page` (from docs/) has it, with links that work there.

    `show` puts an image from outside docs/, a path from the root, on the site and says where. A link to nothing is left
    as it is, for MkDocs to warn of.
    """

    def lead(found: re.Match[str]) -> str:
        image, words, target = found.groups()
        if target is None:
            return found[0]
        path, hash_sign, anchor = target.partition("#")
        if "://" in target or not path:
            return found[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
        if place in PAGES:
            to = PAGES[place]
        elif place.startswith("notebooks/") and (ROOT / place).is_file():
            to = str(Path(place).with_suffix(".md"))
        elif image and not place.startswith("docs/") and (ROOT / place).is_file():
            to = show(place)
        elif place.startswith("docs/") and place.endswith((".md", *IMAGES)):
            to = place.removeprefix("docs/")
        elif (ROOT / place).exists():
            kind = "tree" if (ROOT / place).is_dir() else "blob"
            return f"{image}{words}({repository.rstrip('/')}/{kind}/main/{place}{hash_sign}{anchor})"
        else:
            return found[0]
        return f"{image}{words}({posixpath.relpath(to, posixpath.dirname(page) or '.')}{hash_sign}{anchor})"

    return LINK.sub(lead, text)
