"""How to cite the package, as CITATION.cff says it to GitHub and Zenodo."""

from __future__ import annotations

TITLE = "dpem_env: multi-agent reinforcement learning for entanglement allocation in quantum networks"
AUTHORS = "The dpem_env developers"
YEAR = 2026


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
