"""The errors of ieadapt: each says what was expected, what was found, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import NoneType
from typing import Any, get_args, get_type_hints


class IEAdaptError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        problem: what is wrong, in one short clause.
        expected: what would have been accepted.
        got: what was found instead.
        where: the site, file, argument or row concerned.
        remedy: what the reader can do now.

    Example:
        >>> from ieadapt.errors import UsageError
        >>> print(UsageError("steps must be positive", expected=">= 1", got=0, remedy="pass --steps 25"))
        steps must be positive; expected >= 1; got 0; remedy: pass --steps 25
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        expected: object = None,
        got: object = None,
        where: object = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.expected, self.got, self.where, self.remedy = problem, expected, got, where, remedy
        labelled = (("expected ", expected), ("got ", got), ("in ", where), ("remedy: ", remedy))
        super().__init__("; ".join([problem, *(f"{label}{value}" for label, value in labelled if value is not None)]))


class UsageError(IEAdaptError, ValueError):
    """What was asked for cannot be: a bad value, an unknown name, a selection that matches nothing (exit code 2)."""

    exit_code = 2


class FailureError(IEAdaptError, RuntimeError):
    """The request was sound but could not be carried out: a site that never fired, a NaN, a full disk (exit code 1)."""


class IEAdaptWarning(UserWarning):
    """What a reader should know although the result stands; the command line shows these, and no other warnings."""


def reason_of(error: BaseException) -> str:
    """What the system says of an error, without its number and the path; of any other its text, cut, on one line."""
    plain = {UnicodeDecodeError: "not UTF-8 text", KeyError: f"no {error} in it"}.get(type(error))
    return " ".join((plain or getattr(error, "strerror", None) or str(error)).split())[:200]


@contextmanager
def raised_as(
    kind: type[IEAdaptError], problem: str, causes: type[Exception] | tuple[type[Exception], ...], **facts: Any
) -> Iterator[None]:
    """Turn what a block raises into an error of ours, with the reason as `got`; errors of ours pass.

    Args:
        kind: the class of the error.
        problem: what is wrong.
        causes: what is turned into it.
        facts: `expected`, `where`, `remedy`, and `got` in place of the reason.

    Example:
        >>> with raised_as(UsageError, "the file cannot be read", OSError, where="a.txt"):
        ...     open("no such file")
        Traceback (most recent call last):
        ...
        ieadapt.errors.UsageError: the file cannot be read; got No such file or directory; in a.txt
    """
    try:
        yield
    except IEAdaptError:
        raise
    except causes as error:
        raise kind(problem, **({"got": reason_of(error)} | facts)) from error


PLAIN = (str, int, float, bool, NoneType)


def require_types(config: Any) -> None:
    """Refuse a config of which a field of words or numbers holds something else, such as a function or a list.

    Raises:
        UsageError: naming the field.

    Example:
        >>> import dataclasses
        >>> Config = dataclasses.make_dataclass("Config", [("scale", int | float, 1.0)])
        >>> require_types(Config("much"))
        Traceback (most recent call last):
        ...
        ieadapt.errors.UsageError: scale cannot be this; expected int or float; got str 'much'; in ...
    """
    for name, kind in get_type_hints(type(config)).items():
        kinds, value = get_args(kind) or (kind,), getattr(config, name, None)
        if not set(kinds) <= set(PLAIN):
            continue
        accepted = (*kinds, int) if float in kinds else kinds
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in kinds):
            raise UsageError(
                f"{name} cannot be this",
                expected=" or ".join(member.__name__.replace("NoneType", "None") for member in kinds),
                got=f"{type(value).__name__} {value!r}",
                where=type(config).__name__,
            )
