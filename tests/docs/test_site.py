"""The documentation builds without a warning, and a reader's browser fetches nothing from a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
_FETCHED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"(?P<src>[^\"]+)\"|<link\b(?P<link>[^>]*)>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def fetched(page: str) -> set[str]:
    """What a browser loads for a page by itself: scripts, pictures, frames and style sheets, not links to follow."""
    found = set()
    for tag in _FETCHED.finditer(page):
        address = re.search(r"href=\"([^\"]+)\"", tag["link"] or "")
        found |= {tag["src"] or (address[1] if address else "")}
    return found - {""}


def test_nothing_is_fetched_from_a_network(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) > 10
    assert not [(page.name, url) for page in pages for url in fetched(page.read_text()) if "//" in url]
    assert not [sheet for sheet in site.rglob("*.css") if re.search(r"url\(['\"]?(https?:)?//", sheet.read_text())]


def test_formulas_are_drawn_without_a_script(site: Path) -> None:
    concepts = (site / "concepts.html").read_text()
    assert "<math " in concepts
    assert "arithmatex" not in concepts


def test_what_a_page_fetches_is_seen() -> None:
    text = (
        '<script src="a.js"></script><link rel="stylesheet" href="//b.css"><a href="https://c">c</a><img src="d.png">'
    )
    assert fetched(text) == {"a.js", "//b.css", "d.png"}
