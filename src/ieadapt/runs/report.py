"""Reports: one self-contained HTML file, the same look for every workflow, no network, no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from jinja2 import Environment, PackageLoader, StrictUndefined

from ieadapt.runs.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@runtime_checkable
class Block(Protocol):
    """A piece of a report: `kind` names the macro of the template that draws it."""

    kind: ClassVar[str]


@dataclass(frozen=True)
class Text:
    """A paragraph in plain words."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Table:
    """A table; cells are shown as they are, numbers already formatted.

    Attributes:
        headings: one per column.
        rows: one sequence of cells per row.
        caption: what the table says, with units.
        numeric: indices of the columns aligned to the right.
    """

    kind: ClassVar[str] = "table"
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numeric: Sequence[int] = ()


@dataclass(frozen=True)
class Picture:
    """A PNG picture with its description for those who do not see it.

    Attributes:
        png: the picture.
        caption: what stands below it.
        description: what it shows.
        least_width: in pixels; on a narrower screen it scrolls instead of shrinking further.
    """

    kind: ClassVar[str] = "picture"
    png: bytes
    caption: str
    description: str
    least_width: int = 0


@dataclass(frozen=True)
class Clip:
    """An MP4 video with its caption."""

    kind: ClassVar[str] = "clip"
    mp4: bytes
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Clips in a grid that becomes one column on a narrow screen."""

    kind: ClassVar[str] = "gallery"
    clips: Sequence[Clip]


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """What a report says, from top to bottom.

    Attributes:
        title: what was done.
        request: what was run, in a sentence.
        results: what came out, in plain words, one paragraph each.
        sections: pictures, videos and tables.
        repeat: label ("command line", "Python") -> the lines that do it again.
        record: name -> value: model, seeds, versions, machine.
    """

    title: str
    request: str
    results: Sequence[str]
    sections: Sequence[Section] = ()
    repeat: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, object] = field(default_factory=dict)


def render_report(report: Report) -> str:
    """The report as one HTML file that needs nothing else.

    Example:
        >>> html = render_report(Report("Measured", "one model", ["Spatial <b> layers lead."]))
        >>> "Spatial &lt;b&gt; layers lead." in html, "http" in html
        (True, False)
    """
    environment = Environment(
        loader=PackageLoader("ieadapt.runs", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment.get_template("report.html.j2").render(report=report)


def write_report(run: RunFolder, report: Report) -> None:
    """Write a report into its run, and into the run's record its results and the lines that do it again."""
    run.note(results=list(report.results), repeat=dict(report.repeat))
    run.write("report.html", render_report(report))


def figure_png(figure: Figure, dots_per_inch: int = 140) -> bytes:
    """A matplotlib figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()
