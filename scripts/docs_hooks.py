"""What the documentation's build adds to MkDocs: formulas become MathML, so that no script has to draw them."""

from __future__ import annotations

import html
import re
from typing import Any

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">(?P<text>.*?)</(?P=tag)>',
    re.DOTALL,
)


def on_page_content(content: str, **kwargs: Any) -> str:
    """Called by MkDocs with the HTML of every page."""
    return with_formulas(content)


def with_formulas(content: str) -> str:
    r"""Replace every formula that the Markdown extension marked by MathML.

    Example:
        >>> with_formulas('<span class="arithmatex">\\(x\\)</span>')
        '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline"><mrow><mi>x</mi></mrow></math>'
    """
    return _FORMULA.sub(_formula, content)


def _formula(found: re.Match[str]) -> str:
    from latex2mathml.converter import convert

    latex = html.unescape(found["text"]).strip()[2:-2]  # without \( \) or \[ \]
    return convert(latex, display="inline" if found["tag"] == "span" else "block")
