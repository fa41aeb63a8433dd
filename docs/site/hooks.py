"""Hooks of MkDocs: pages that are made of the code and of files outside docs/, and links that work on the site."""

from __future__ import annotations

import posixpath
import re
import sys

from links import PAGES, ROOT, led
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import notebooks

sys.path.insert(0, str(ROOT / "docs"))
from generated import Generated, generated

OF_TABLES = re.compile(r"^<!-- /?[\w-]+ -->$", re.MULTILINE)  # between which docs/update.py writes
NAMED_CODE = re.compile(r"^```(\w+) (\S+)$", re.MULTILINE)  # a block to be saved as a file
FROM_ROOT = {page: source for source, page in PAGES.items() if source.endswith(".md")}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put a page for every scenario into the navigation."""
    pages = [name for name in generated() if name.startswith("scenarios/") and name.endswith(".md")]
    for entry in config.nav or ():
        if "Scenarios" in entry:
            entry["Scenarios"] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add generated pages and pictures, and the pages whose sources lie outside docs/."""
    texts: Generated = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in FROM_ROOT.items()}
    style: Generated = {"site.css": (ROOT / "docs" / "site" / "site.css").read_text(encoding="utf-8")}
    for name, content in (texts | style | generated() | notebooks.pages()).items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page as Material takes it."""

    def show(image: str) -> str:
        place = posixpath.join("shown", image)
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, content=(ROOT / image).read_bytes()))
        return place

    name = page.file.src_uri
    markdown = NAMED_CODE.sub(r'```\1 title="\2"', OF_TABLES.sub("", markdown))
    origin = name if name.startswith("notebooks/") else FROM_ROOT.get(name, f"docs/{name}")
    return led(markdown, origin, name, config.repo_url or "", show)
