"""What a browser shows: templates that escape their values, and errors without paths, tokens and tracebacks."""

from __future__ import annotations

import functools
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from ieadapt.errors import IEAdaptError

UNEXPECTED = "It failed for a reason that is not shown here; the log of the server has it."
NO_MEMORY = "The memory did not do. Ask for fewer or smaller frames, fewer videos at once, or a smaller model."
NO_LABELS: Mapping[str, str] = MappingProxyType({})
_PATH = re.compile(r"(?<![\w:./~-])(?:~|[A-Za-z]:)?(?:[/\\][\w.+@% -]*[\w.+@%-])+[/\\]?")
_TOKEN = re.compile(r"\b(?:hf|sk|ghp|github_pat)_[A-Za-z0-9_]{8,}")
_FLAG = re.compile(r"--([a-z][a-z-]+)")
_NAME = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")
_SUBJECT = re.compile(r"[a-z]+(?= (?:must|cannot|is|has|holds|takes) )")
_SHORT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


def render(template: str, **values: Any) -> str:
    """A template of this package, filled; every value is escaped.

    Example:
        >>> "&lt;b&gt;" in render("notice.html.j2", message="<b>", tone="error")
        True
    """
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> Environment:
    loader = PackageLoader("ieadapt.web", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["address"] = address
    environment.filters["clock"] = clock
    return environment


def address(run: str, path: str) -> str:
    """Where the server gives out a file of a run.

    Example:
        >>> address("enhance-1", "00-plain.mp4")
        '/files/enhance-1/00-plain.mp4'
    """
    return f"/files/{quote(run, safe='')}/{quote(path)}"


def clock(seconds: int | float) -> str:
    """A time span for a reader.

    Example:
        >>> clock(3.2), clock(75), clock(7300)
        ('3 s', '1 min 15 s', '2 h 1 min')
    """
    minutes, rest = divmod(max(round(seconds), 0), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def message_of(error: BaseException, labels: Mapping[str, str] = NO_LABELS) -> str:
    """An error as a reader of the page may see it: fields by their labels, no paths, nothing of unexpected errors.

    Args:
        error: what was raised.
        labels: of the fields of a form, by the names that errors give them.

    Example:
        >>> from ieadapt.errors import UsageError
        >>> message_of(UsageError("not a profile", got="/home/me/runs/a", remedy="lower --guidance-scale"))
        'Not a profile; got a; remedy: lower “Guidance scale”.'
        >>> message_of(KeyError("/home/me/secret"))
        'It failed for a reason that is not shown here; the log of the server has it.'
    """
    if isinstance(error, MemoryError) or any(phrase in str(error).lower() for phrase in _SHORT_OF_MEMORY):
        return NO_MEMORY
    if not isinstance(error, IEAdaptError):
        return UNEXPECTED
    where = error.where if error.where is not None and not _PATH.fullmatch(str(error.where)) else None
    labelled = (("expected ", error.expected), ("got ", error.got), ("in ", where), ("remedy: ", error.remedy))
    parts = [error.problem, *(f"{label}{value}" for label, value in labelled if value is not None)]
    shortened = _PATH.sub(lambda path: re.split(r"[/\\]", path[0].rstrip("/\\"))[-1], "; ".join(parts))
    return capitalise(_with_labels(_TOKEN.sub("(a token)", shortened), labels)).rstrip(".") + "."


def _with_labels(text: str, labels: Mapping[str, str]) -> str:
    """Flags, and the names of fields that stand in sentences as only names do, replaced by labels."""
    text = _FLAG.sub(lambda flag: f"“{labels.get(flag[1].replace('-', '_'), label_of(flag[1]))}”", text)
    text = _NAME.sub(lambda name: f"“{labels[name[0]]}”" if name[0] in labels else name[0], text)
    subject = _SUBJECT.match(text)
    return f"“{labels[subject[0]]}”{text[subject.end() :]}" if subject and subject[0] in labels else text


def label_of(flag: str) -> str:
    """A flag as the label of a field.

    Example:
        >>> label_of("guidance-scale")
        'Guidance scale'
    """
    return capitalise(flag.replace("-", " ").replace("_", " "))


def capitalise(text: str) -> str:
    """A text with a large first letter, and otherwise as it is."""
    return text[:1].upper() + text[1:]


def folders_of_this_machine(root: Path) -> tuple[str, ...]:
    """Folders whose names no file that is shown may hold, the longest first."""
    package = Path(__file__).parents[1]
    known = {root, Path.cwd(), Path.home(), package, package.parent, Path(sys.prefix), Path(tempfile.gettempdir())}
    names = {str(folder.resolve()) for folder in known} | {str(folder) for folder in known if folder.is_absolute()}
    return tuple(sorted((name for name in names if len(name) > 1), key=len, reverse=True))


def hide_folders(text: str, folders: Iterable[str]) -> str:
    """A text in which paths below known folders begin at these folders.

    Example:
        >>> hide_folders("--out /home/me/runs/a", ["/home/me/runs"])
        '--out a'
    """
    for folder in folders:
        text = text.replace(f"{folder}/", "").replace(folder, ".")
    return text
