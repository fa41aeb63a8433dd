"""The documentation as a site: builds without a warning, has what it promises, and a dead link stops it."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import shutil
from pathlib import Path

import nbformat
import pytest

from dpem_env import physics, policies
from dpem_env.demand import forecast
from dpem_env.scenarios import OFFERED_LOADS, SCENARIOS
from dpem_env.simulator import RULES_VERSION

pytest.importorskip("material", reason="needs the extra docs")
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CONFIG = DOCS / "site" / "mkdocs.yml"

pytestmark = pytest.mark.xdist_group("the site")  # what is generated is kept for the next build


def made(docs: Path, site: Path) -> Path:
    """The site of these pages, where any warning is an error."""
    build(load_config(str(CONFIG), docs_dir=str(docs), site_dir=str(site), strict=True))
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(DOCS, tmp_path_factory.mktemp("site"))


def page(site: Path, name: str) -> str:
    return (site / name / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_has_a_page(site: Path, name: str) -> None:
    text = page(site, f"scenarios/{name}")
    assert SCENARIOS[name].hash in text
    assert f"rules {RULES_VERSION}" in text
    assert f'href="{name}/"' in page(site, "scenarios")
    assert (f"ρ = {OFFERED_LOADS[name]:.2f}" in text) if name in OFFERED_LOADS else ("ρ" not in text)
    assert (site / "scenarios" / f"{name}.png").is_file() == ("No map" not in text)


def test_scores_of_a_scenario_are_those_of_committed_results(site: Path) -> None:
    row = re.search(r"\| maxweight +\|([^|]*)\|", (DOCS / "results.md").read_text("utf-8"))
    assert row is not None
    assert row[1].strip() in page(site, "scenarios/mesh100-v0")
    assert "no committed result" in page(site, "scenarios/mesh100-10s-v0")


def test_every_formula_and_policy_and_forecaster_is_described(site: Path) -> None:
    formulas = {name for name, each in vars(physics).items() if inspect.isfunction(each) and name[0] != "_"}
    assert formulas
    assert all(f'id="{name}"' in page(site, "formulas") for name in formulas)
    described = page(site, "baselines")
    assert all(f"<strong>{name}</strong>" in described for name in [*policies.available(), *forecast.available()])


def test_the_docstring_of_the_environment_is_its_page(site: Path) -> None:
    text = page(site, "environment")
    assert ">free_memory</td>" in text
    assert ">====" not in text


def test_links_out_of_docs_lead_to_pages_or_to_the_repository(site: Path) -> None:
    repository = load_config(str(CONFIG)).repo_url
    home = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="rules/#information-has-an-age"' in home
    assert f'href="{repository}/blob/main/agents/dpem_agents/dpem.py"' in home
    assert (site / "shown" / "baselines" / "results" / "mesh100-reactive" / "results.png").is_file()
    for file in site.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert not re.findall(r'href="(?!http)[^"]*\.(?:py|md|toml|json)"', text), file


def test_no_markdown_is_left_over(site: Path) -> None:
    for file in site.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert "```" not in text, file
        assert "<p>|" not in text, file


DEAD = {
    "no-such-page.md": "link 'no-such-page.md', but the target is not found",
    "rules.md#no-such-heading": "does not contain an anchor '#no-such-heading'",
    "../dpem_env/no_such_file.py": "link '../dpem_env/no_such_file.py', but the target is not found",
    "no-such-picture.png": "link 'no-such-picture.png', but the target is not found",
}


def test_a_dead_link_stops_the_build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    docs = shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("site", "__pycache__"))
    with (docs / "faq.md").open("a", encoding="utf-8") as faq:
        faq.write("".join(f"\n[here]({target})\n" for target in DEAD))
    with caplog.at_level(logging.INFO, "mkdocs"), pytest.raises(Abort, match=f"{len(DEAD)} warnings"):
        made(docs, tmp_path / "site")
    assert all(words in caplog.text for words in DEAD.values())


def test_every_notebook_is_a_page_with_what_a_run_of_it_showed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(CONFIG.parent)
    notebooks = importlib.import_module("notebooks")
    for path in notebooks.FOLDER.glob("*.ipynb"):
        assert path.name in page(site, f"notebooks/{path.stem}")
    assert 'href="../own_pytorch_loop/"' in page(site, "notebooks/quick_start")
    picture = nbformat.v4.new_output("display_data", {"image/png": "aGk=", "text/plain": "<Figure>"})
    assert notebooks.shown(picture, "x-0.png") == "![output](x-0.png)"
    assert notebooks.shown(nbformat.v4.new_output("stream", text="\x1b[31m0.5\x1b[0m\n"), "") == "```text\n0.5\n```"
    assert notebooks.shown(nbformat.v4.new_output("stream", name="stderr", text="warned"), "") == ""
