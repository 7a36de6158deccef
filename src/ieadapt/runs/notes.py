"""Notes: what a reader should know although the result stands, from this process and from those of workers."""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ieadapt.errors import IEAdaptWarning

LOADERS = {
    "diffusers": ("diffusers.models.modeling_utils", logging.WARNING),  # of a size that it rounds, a text that it cuts
    "transformers": ("transformers.modeling_utils", logging.ERROR),
}
"""Where the libraries log which weights they did not find or use, and from which level on their logs are notes."""

LONGEST = 300
"""Characters of what a library logs that become a note."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@contextlib.contextmanager
def noted(show: Callable[[str], object] | None = None) -> Iterator[Sequence[str]]:
    """Show each note that comes up in the block once, and list it.

    Notes that differ only in what follows their first clause, such as how much memory was free, count as one.

    Args:
        show: shows a note; by default as warnings are shown outside the block.

    Example:
        >>> with noted(lambda note: None) as notes:
        ...     warnings.warn("the size was rounded; got 15", IEAdaptWarning)
        ...     warnings.warn("the size was rounded; got 13", IEAdaptWarning)
        >>> notes
        ['the size was rounded; got 15']
    """
    notes, known = list[str](), set[str]()
    with warnings.catch_warnings():
        before = warnings.showwarning

        def once(message: Warning | str, category: type[Warning], *more: Any, **named: Any) -> None:
            note = str(message) if issubclass(category, IEAdaptWarning) else None
            if note is not None:
                if (first := note.partition(";")[0]) in known:
                    return
                known.add(first)
                notes.append(note)
            if note is not None and show is not None:
                show(note)
            else:
                before(message, category, *more, **named)

        warnings.showwarning = once
        yield notes


@contextlib.contextmanager
def overheard() -> Iterator[Sequence[str]]:
    """List the notes that come up in a worker, whose own output nobody sees; `pass_on` shows them elsewhere."""
    with noted(lambda note: None) as notes, libraries_heard():
        warnings.simplefilter("always", IEAdaptWarning)
        yield notes


def pass_on(notes: Sequence[str]) -> None:
    """Warn in this process of what a worker noted."""
    for note in notes:
        warnings.warn(note, IEAdaptWarning, stacklevel=3)


@contextlib.contextmanager
def libraries_heard() -> Iterator[None]:
    """Let what the libraries log of weights be notes, and their progress bars be off."""
    handler, settings = _NoteHandler(), {name: importlib.import_module(f"{name}.utils.logging") for name in LOADERS}
    for library, (loader, level) in LOADERS.items():
        settings[library].set_verbosity(level)
        settings[library].get_logger(loader).setLevel(logging.WARNING)
        settings[library].disable_progress_bar()
        settings[library].disable_default_handler()
        settings[library].add_handler(handler)
    try:
        yield
    finally:
        for each in settings.values():
            each.remove_handler(handler)
            each.enable_default_handler()


class _NoteHandler(logging.Handler):
    """Makes a note of everything that is logged; tables of it are cut."""

    def emit(self, record: logging.LogRecord) -> None:
        text = _COLOUR.sub("", record.getMessage())
        if "should be kept in float32: []" in text:  # diffusers says this of AnimateDiff, which has no such modules
            return
        warnings.warn(textwrap.shorten(text, LONGEST, placeholder=" ..."), IEAdaptWarning, stacklevel=2)
