"""A report is one file that needs nothing else, and shows text as text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import torch
from matplotlib.figure import Figure

from ieadapt.runs.report import Clip, Gallery, Picture, Report, Section, Table, Text, figure_png, render_report
from ieadapt.runs.videos import encode_video

_VOID = {"meta", "link", "img", "br"}


class _Checker(HTMLParser):
    """Collects addresses and notices tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in {"src", "href"}]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _report() -> Report:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    blocks = [
        Text("A <script>alert(1)</script> paragraph."),
        Table(("site", "EP"), [("mid", "71.4"), ("<up>", "84.0")], caption="EP in %", numeric=(1,)),
        Picture(figure_png(figure), "EP per site", "a rising line"),
        Gallery([Clip(encode_video(torch.zeros(2, 3, 16, 16)), 'a "quoted" caption')]),
    ]
    return Report(
        title="Measured",
        request="one model",
        results=["First.", "Second."],
        sections=[Section("What was seen", blocks)],
        repeat={"Command line": "ieadapt measure scenes --prompt 'a red ball'"},
        record={"seed": 0, "torch": "2.13.0"},
    )


def test_it_is_one_well_formed_file_without_network_or_script() -> None:
    html = render_report(_report())
    checker = _Checker()
    checker.feed(html)
    assert checker.open == []
    assert checker.addresses
    assert all(address.startswith("data:") for address in checker.addresses)
    assert "script" not in checker.tags
    assert not re.search(r"https?://|@import|url\(", html)


def test_text_is_text() -> None:
    html = render_report(_report())
    assert "&lt;script&gt;" in html
    assert "&lt;up&gt;" in html
    assert "a &#34;quoted&#34; caption" in html


def test_everything_that_was_given_is_shown() -> None:
    html = render_report(_report())
    for words in ("Measured", "one model", "First.", "Second.", "What was seen", "EP in %", "71.4", "EP per site"):
        assert words in html
    for words in ("a rising line", "How to repeat it", "--prompt &#39;a red ball&#39;", "2.13.0"):
        assert words in html


def test_a_report_with_nothing_but_words_has_no_empty_parts() -> None:
    html = render_report(Report("Measured", "one model", ["First."]))
    assert "How to repeat it" not in html
    assert "<h2>" not in html
