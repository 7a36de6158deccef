"""The settings of a maps run."""

from __future__ import annotations

from dataclasses import dataclass

from ieadapt.errors import UsageError
from ieadapt.runs.flags import setting
from ieadapt.runs.settings import PromptRun


@dataclass(frozen=True)
class MapsRun(PromptRun):
    """The settings of a maps run, beside those of every run with prompts; it takes exactly one prompt.

    Attributes:
        site: the name of one attention site.
        at_steps: denoising steps, with commas; None for the first, the middle and the last.
        query: FRAME,ROW,COL of the token that looks.
        mean: the mean over all tokens instead; also where there is no query.
        threshold: share of a map's largest weight below which a second view is blank.
        head: one head; None for the mean.

    Raises:
        UsageError: anything here that cannot be.
    """

    site: str | None = setting(None, "one attention site (`ieadapt sites MODEL`)")
    at_steps: str | None = setting(None, "denoising steps to look at, as in 0,12,24; by default first, middle, last")
    query: str | None = setting(None, "FRAME,ROW,COL of the token that looks, from 0")
    mean: bool = setting(False, "the mean over all tokens that look (the default)")
    threshold: float | None = setting(None, "also a view without weights below this share of the largest, in (0, 1)")
    head: int | None = setting(None, "one head, from 0; by default the mean over heads")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.prompts) > 1:
            raise UsageError("maps are drawn for one prompt", got=len(self.prompts), where="--prompt")
        if not self.site:
            raise UsageError("there is no site", remedy="pass --site NAME; `ieadapt sites MODEL` lists them")
        if self.mean and self.query is not None:
            raise UsageError("a query and the mean over all exclude each other", got=f"--query {self.query} and --mean")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UsageError(
                "a threshold is a share of the largest weight", expected="between 0 and 1", got=self.threshold
            )
        if len(self.token or (0, 0, 0)) != 3:
            raise UsageError("a query is one token", expected="FRAME,ROW,COL", got=self.query, where="--query")
        if self.step_numbers is not None and not self.step_numbers:
            raise UsageError(
                "no step to look at", expected="such as 0,12,24", got=repr(self.at_steps), where="--at-steps"
            )

    @property
    def step_numbers(self) -> tuple[int, ...] | None:
        """The steps as numbers, or None."""
        return None if self.at_steps is None else _whole_numbers(self.at_steps, "--at-steps", "0,12,24")

    @property
    def token(self) -> tuple[int, ...] | None:
        """The query as numbers, or None."""
        return None if self.query is None else _whole_numbers(self.query, "--query", "FRAME,ROW,COL")


def _whole_numbers(text: str, flag: str, example: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError("not whole numbers", expected=f"such as {example}", got=repr(text), where=flag) from error
