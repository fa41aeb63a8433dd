"""How to cite the package, as CITATION.cff says it to GitHub and Zenodo."""

from __future__ import annotations

TITLE = "dpem_env: multi-agent reinforcement learning for entanglement allocation in quantum networks"
AUTHORS = "The dpem_env developers"
YEAR = 2026


def citation(version: str, rules: str) -> str:
    """A reference of this version and its rules as a sentence, as an entry for BibTeX, and what to name beside it.

    BibTeX takes what stands outside of entries for comments, so all of it may go into a .bib file.
    """
    return (
        f"{AUTHORS} ({YEAR}). {TITLE} (version {version}, rules {rules}) [Computer software].\n\n"
        f"{bibtex(version, rules)}\n"
        f"Results compare under the same rules and scenarios only: name rules {rules} and the hash of every scenario,\n"
        "which summary.json of a run and dpem_env.scenarios.get(NAME).hash tell.\n"
    )


def bibtex(version: str, rules: str) -> str:
    """An entry for BibTeX, of this version and its rules: results of other rules are not comparable."""
    fields = {
        "author": f"{{{AUTHORS}}}",
        "title": f"{{{TITLE}}}",
        "year": YEAR,
        "version": version,
        "note": f"rules {rules}",
    }
    told = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
    return f"@software{{dpem_env,\n{told}}}\n"
