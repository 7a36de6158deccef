"""HTML of the pages: templates that escape whatever is put into them."""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ieadapt.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["address"] = address
    environment.filters["clock"] = clock
    return environment


def render(template: str, **values: Any) -> str:
    """A template of this package, filled; every value is escaped.

    Example:
        >>> "&lt;b&gt;" in render("notice.html.j2", words="<b>", tone="error")
        True
    """
    return _environment().get_template(template).render(**values)


def address(run: str, path: str) -> str:
    """Where the server gives out a file of a run.

    Example:
        >>> address("enhance-1", "00-plain.mp4")
        '/files/enhance-1/00-plain.mp4'
    """
    return f"/files/{quote(run, safe='')}/{quote(path)}"


def clock(seconds: int | float) -> str:
    """A time span as it is spoken.

    Example:
        >>> clock(3.2), clock(75), clock(7300)
        ('3 s', '1 min 15 s', '2 h 1 min')
    """
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
