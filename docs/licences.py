"""Write docs/licences.md: the licence of every package that pip installs with this one, as it states it itself.

python docs/licences.py ENVIRONMENT...    # virtual environments that have all extras between them; make licences
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dpem_env.support.errors import DpemError

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BASE = "(base)"
LONGEST = 60  # characters; longer ones are the text of a licence
STATED_ELSEWHERE = {"cuda-toolkit": "no files of its own, a list of NVIDIA's packages"}

HEAD = """# Licences of what is installed

dpem_env is under the [MIT licence](../LICENSE). pip installs other packages with it. None of them is part of its
distributions, which hold D3 (ISC licence), by which `dpem watch` draws episodes.

Each package states its licence as follows, in the versions that everything here was measured with, on Linux; `flower`
needs older ones of some. The last column says what brings a package: `(base)` is every installation, other names are
extras, of which `dev` and `docs` are for those who work on dpem_env. PyTorch of the general index brings NVIDIA's
packages, too, on Linux; [that of its own index](versioning.md#installing-the-versions-of-a-release) does not.

"""

Installed = dict[str, Distribution]


def write(environments: Iterable[Path]) -> None:
    """The page, from what is installed in these virtual environments."""
    found = [installed(each) for each in environments]
    rows: dict[tuple[str, str], tuple[Distribution, list[str]]] = {}
    base: set[str] = set()
    for extra in (BASE, *PROJECT["optional-dependencies"]):
        there, names = needed(extra, found)
        base = base or names
        for name in sorted(names if extra == BASE else names - base):
            rows.setdefault((name, there[name].version), (there[name], []))[1].append(extra)
    lines = ["| package | version | licence | with |", "|:--|:--|:--|:--|"]
    for (name, version), (package, extras) in sorted(rows.items()):
        lines.append(f"| {name} | {version} | {licence(package)} | {', '.join(extras)} |")
    PAGE.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


def installed(environment: Path) -> Installed:
    """The packages of a virtual environment, by name."""
    sites = [str(each) for each in environment.glob("**/site-packages")]
    if not sites:
        raise DpemError(
            f"{environment} has no site-packages; expected a virtual environment, such as make licences makes"
        )
    return {canonicalize_name(each.name): each for each in distributions(path=sites)}


def needed(extra: str, environments: list[Installed]) -> tuple[Installed, set[str]]:
    """The first environment that has all an extra installs, and the names of that."""
    missing: list[str] = []
    for there in environments:
        names, lacks = closure(asked(extra), there)
        if not lacks:
            return there, names
        missing += lacks
    raise DpemError(f"no environment has all of {extra}; missing are {', '.join(sorted(set(missing)))}")


def asked(extra: str) -> list[Requirement]:
    """What pyproject.toml asks for in an extra, or without any."""
    return [*map(Requirement, PROJECT["dependencies"] if extra == BASE else PROJECT["optional-dependencies"][extra])]


def closure(wanted: list[Requirement], there: Installed) -> tuple[set[str], list[str]]:
    """The names of these packages and of all that they need, and the names of those that are not there."""
    names: set[str] = set()
    lacks: list[str] = []
    todo = [(canonicalize_name(each.name), extra) for each in wanted for extra in ("", *each.extras)]
    seen: set[tuple[str, str]] = set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        if name == canonicalize_name(PROJECT["name"]):
            more = asked(extra or BASE)
        elif name in there:
            names.add(name)
            more = [*map(Requirement, there[name].requires or ())]
        else:
            lacks.append(name)
            continue
        environment = {**default_environment(), "extra": extra}
        todo += [
            (canonicalize_name(each.name), with_extra)
            for each in more
            if each.marker is None or each.marker.evaluate(environment)
            for with_extra in ("", *each.extras)
        ]
    return names, lacks


def licence(package: Distribution) -> str:
    """The licence that a package states: an SPDX expression, else its classifiers, else a short text."""
    said = package.metadata
    classifiers = [each for each in said.get_all("Classifier") or () if each.startswith("License :: ")]
    text = (said.get("License") or "").strip()
    stated = (
        said.get("License-Expression")
        or ", ".join(each.rpartition(" :: ")[2] for each in classifiers if not each.endswith(":: OSI Approved"))
        or (text if "\n" not in text and len(text) <= LONGEST else "")
    )
    return stated if stated not in ("", "UNKNOWN") else STATED_ELSEWHERE.get(canonicalize_name(package.name), "unknown")


def main() -> int:
    """Parse and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", nargs="+", type=Path, metavar="ENVIRONMENT")
    try:
        write(parser.parse_args().environments)
    except DpemError as error:
        sys.exit(f"licences.py: error: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
