"""What a browser is told of an error: this package's words without paths and tokens, and nothing of other errors."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from ieadapt.errors import IEAdaptError

UNEXPECTED = "It failed for a reason that is not shown here; the log of the server has it."
NO_MEMORY = "The memory did not do. Ask for fewer or smaller frames, fewer videos at once, or a smaller model."
_PATH = re.compile(r"(?<![\w:./~-])(?:~|[A-Za-z]:)?(?:[/\\][\w.+@% -]*[\w.+@%-])+[/\\]?")
_TOKEN = re.compile(r"\b(?:hf|sk|ghp|github_pat)_[A-Za-z0-9_]{8,}")
_FLAG = re.compile(r"--([a-z][a-z-]+)")
_NAME = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")
_SUBJECT = re.compile(r"[a-z]+(?= (?:must|cannot|is|has|holds|takes) )")
NO_LABELS: Mapping[str, str] = MappingProxyType({})
_SHORT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


def told(error: BaseException, labels: Mapping[str, str] = NO_LABELS) -> str:
    """An error as a reader of the page may see it: fields by their labels, no paths, nothing of unexpected errors.

    Args:
        error: what was raised.
        labels: of the fields of a form, by the names that errors give them.

    Example:
        >>> from ieadapt.errors import UsageError
        >>> told(UsageError("not a profile", got="/home/me/runs/a", where="/home/me", remedy="lower --guidance-scale"))
        'Not a profile; got a; remedy: lower “Guidance scale”.'
        >>> told(KeyError("/home/me/secret"))
        'It failed for a reason that is not shown here; the log of the server has it.'
    """
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _SHORT_OF_MEMORY):
        return NO_MEMORY
    if not isinstance(error, IEAdaptError):
        return UNEXPECTED
    where = error.where if error.where is not None and not _PATH.fullmatch(str(error.where)) else None
    labelled = (("expected ", error.expected), ("got ", error.got), ("in ", where), ("remedy: ", error.remedy))
    parts = [error.problem, *(f"{label}{value}" for label, value in labelled if value is not None)]
    text = _labelled(_without_paths("; ".join(parts)), labels)
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _labelled(text: str, labels: Mapping[str, str]) -> str:
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
    words = flag.replace("-", " ").replace("_", " ")
    return words[:1].upper() + words[1:]


def places_of_this_machine(root: Path) -> tuple[str, ...]:
    """Folders whose names no file that is shown may hold, the longest first."""
    package = Path(__file__).parents[1]
    known = {root, Path.cwd(), Path.home(), package, package.parent, Path(sys.prefix), Path(tempfile.gettempdir())}
    names = {str(place.resolve()) for place in known} | {str(place) for place in known if place.is_absolute()}
    return tuple(sorted((name for name in names if len(name) > 1), key=len, reverse=True))


def without_places(text: str, places: Iterable[str]) -> str:
    """A text in which paths below known folders begin at these folders.

    Example:
        >>> without_places("--out /home/me/runs/a", ["/home/me/runs"])
        '--out a'
    """
    for place in places:
        text = text.replace(f"{place}/", "").replace(place, ".")
    return text


def _without_paths(text: str) -> str:
    """Paths reduced to their last name, tokens left out."""
    shortened = _PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], text)
    return _TOKEN.sub("(a token)", shortened)
