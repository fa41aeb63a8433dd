"""Notebooks as pages of the site, with the outputs of a run; as a script it runs those that have changed.

Notebooks are kept without outputs. A run is kept beside the site's other parts, by the notebook's digest, and shown as
long as the notebook is the same; without one its page says so.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
RUNS = ROOT / "site" / ".notebooks"  # not shown by MkDocs, and not removed by it
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def pages() -> dict[str, str | bytes]:
    """All notebooks as Markdown, and their pictures."""
    found: dict[str, str | bytes] = {}
    for path in sorted(FOLDER.glob("*.ipynb")):
        run = run_of(path)
        parts: list[str] = []
        for cell in nbformat.read(run if run.exists() else path, as_version=4).cells:
            if cell.cell_type == "markdown":
                parts.append(cell.source)
            else:
                parts.append(f"```python\n{cell.source}\n```")
                for output in cell.outputs:
                    picture = f"{path.stem}-{sum(name.endswith('.png') for name in found)}.png"
                    parts.append(shown(output, picture))
                    if "image/png" in output.get("data", {}):
                        found[f"notebooks/{picture}"] = base64.b64decode(output.data["image/png"])
        made = "" if run.exists() else "*Without outputs: this page was built without running the notebook.*\n\n"
        source = f"`notebooks/{path.name}` in the repository. {made}"
        title, *others = parts
        found[f"notebooks/{path.stem}.md"] = "\n\n".join([title, source, *others])
    return found


def shown(output: Any, picture: str) -> str:
    """An output as Markdown, a picture as the file of that name."""
    data = output.get("data", {})
    if "image/png" in data:
        return f"![output]({picture})"
    if "text/html" in data:
        return f'<div class="output" markdown="0">\n{data["text/html"]}\n</div>'
    text = output.get("text") or data.get("text/plain", "")
    return f"```text\n{COLOURS.sub('', text).strip()}\n```" if text.strip() and output.get("name") != "stderr" else ""


def run_of(path: Path) -> Path:
    """Where a run of this notebook is kept."""
    return RUNS / f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}.ipynb"


def main() -> None:
    """Run all that have changed."""
    from nbclient import NotebookClient
    from rich.progress import track

    RUNS.mkdir(parents=True, exist_ok=True)
    todo = [path for path in sorted(FOLDER.glob("*.ipynb")) if not run_of(path).exists()]
    for path in track(todo, "running notebooks"):
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(FOLDER)}}).execute()
        for old in RUNS.glob(f"{path.stem}-*.ipynb"):
            old.unlink()
        nbformat.write(notebook, run_of(path))


if __name__ == "__main__":
    main()
