"""Which keys of a joint attention are video: a contiguous, frame-major range; every other key is text."""

from __future__ import annotations

from dataclasses import dataclass

from ieadapt.errors import UsageError

Span = slice
"""A range of tokens; the class below has a property called slice."""


@dataclass(frozen=True)
class VideoTokens:
    """The video tokens of a sequence: `start .. start + frames * positions`, frame after frame.

    Args:
        start: index of the first video token; 0 where video comes first, the text length where text does.
        frames: latent frames, at least 1.
        positions: tokens of one frame (rows times columns), at least 1.

    Raises:
        UsageError: when a count is below its least value.

    Example:
        >>> video = VideoTokens(start=226, frames=13, positions=30 * 45)
        >>> video.count, video.slice
        (17550, slice(226, 17776, None))
    """

    start: int
    frames: int
    positions: int

    def __post_init__(self) -> None:
        for name, least in (("start", 0), ("frames", 1), ("positions", 1)):
            if getattr(self, name) < least:
                raise UsageError(
                    f"{name} of the video tokens is out of range",
                    expected=f">= {least}",
                    got=getattr(self, name),
                    where="VideoTokens",
                )

    @property
    def count(self) -> int:
        """Number of video tokens."""
        return self.frames * self.positions

    @property
    def stop(self) -> int:
        """Index after the last video token."""
        return self.start + self.count

    @property
    def slice(self) -> Span:
        """The video tokens as a slice of the sequence."""
        return slice(self.start, self.stop)

    def text_slices(self, n_keys: int) -> tuple[Span, ...]:
        """Return the ranges of a sequence of `n_keys` tokens that are not video, empty ones left out.

        Raises:
            UsageError: when the video tokens do not fit into the sequence.

        Example:
            >>> VideoTokens(start=2, frames=2, positions=3).text_slices(10)
            (slice(0, 2, None), slice(8, 10, None))
        """
        if self.stop > n_keys:
            raise UsageError(
                "the video tokens reach past the end of the keys",
                expected=f"start + frames * positions <= {n_keys}",
                got=f"{self.start} + {self.frames} * {self.positions} = {self.stop}",
                where="VideoTokens",
                remedy="pass the layout of this call's own latents",
            )
        ranges = (slice(0, self.start), slice(self.stop, n_keys))
        return tuple(part for part in ranges if part.start < part.stop)

    def rows(self, n_queries: int, n_keys: int) -> Span:
        """Return which query rows are video: the video range if queries are the keys' own tokens, else all rows."""
        return self.slice if n_queries == n_keys else slice(0, n_queries)
