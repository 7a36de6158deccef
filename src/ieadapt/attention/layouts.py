"""Token layouts: which tokens of an attention call are video, at which frame, row and column, and which are text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ieadapt.attention.families import LatentGrid, TextPosition
from ieadapt.attention.sites import AttentionSite
from ieadapt.errors import FailureError
from ieadapt.functional import VideoTokens


@dataclass(frozen=True)
class TokenLayout:
    """Which of one call's query tokens are video and which are text.

    Video tokens are contiguous, frame by frame, row by row. A spatial call holds one frame (`frames == 1`), a
    temporal call one position (`height == width == 1`), a joint call all of them and perhaps text.

    Attributes:
        frames: frames among the tokens.
        height: token rows per frame.
        width: token columns per frame.
        start: index of the first video token.
        text: number of text tokens in the same sequence, before or after the video.

    Example:
        >>> TokenLayout(frames=2, height=1, width=2, start=3, text=3).coordinates().tolist()
        [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]]
    """

    frames: int
    height: int
    width: int
    start: int = 0
    text: int = 0

    @property
    def video(self) -> VideoTokens:
        """The video tokens as the pure functions take them."""
        return VideoTokens(self.start, self.frames, self.height * self.width)

    @property
    def tokens(self) -> int:
        """Length of the whole sequence."""
        return self.frames * self.height * self.width + self.text

    def coordinates(self) -> Int[Tensor, "video_token 3"]:
        """(frame, row, column) of every video token, in sequence order."""
        axes = (torch.arange(n) for n in (self.frames, self.height, self.width))
        return torch.cartesian_prod(*axes)


def token_layout(
    site: AttentionSite, grid: LatentGrid, repeats: int, queries: int, keys: int, text: TextPosition
) -> TokenLayout:
    """The layout of one call, from the latent grid, and a check that the call is of the site's kind.

    Args:
        site: the site that is running.
        grid: the denoiser call's latent grid.
        repeats: rows of the attention call per row of the denoiser's batch.
        queries: query tokens of the call.
        keys: key tokens of the call.
        text: where the family puts text tokens in a joint sequence.

    Raises:
        FailureError: the call's shape contradicts the site's kind.
    """
    layouts = {
        "spatial": lambda: _spatial(grid, repeats, queries) if queries == keys else None,
        "temporal": lambda: _temporal(grid, repeats, queries) if queries == keys else None,
        "joint": lambda: _joint(grid, repeats, queries, text) if queries == keys else None,
        "cross": lambda: (
            _spatial(grid, repeats, queries)
            or _joint(grid, repeats, queries, "none")
            or _temporal(grid, repeats, queries)  # SVD looks at its picture along time, too
        ),
        "text": lambda: TokenLayout(0, 0, 0, text=queries),
    }
    layout = layouts[site.kind]()
    if layout is None:
        raise FailureError(
            f"this call is not {site.kind} attention over the model's latents",
            expected=f"{grid.frames} frames at one of the resolutions {grid.resolutions}",
            got=f"{queries} query and {keys} key tokens, {repeats} rows per video",
            where=site.name,
            remedy="the family's row in ieadapt/attention/families.py does not describe this model; please report it",
        )
    return layout


def _spatial(grid: LatentGrid, repeats: int, tokens: int) -> TokenLayout | None:
    size = next((size for size in grid.resolutions if size[0] * size[1] == tokens), None)
    return TokenLayout(1, *size) if size and repeats == grid.frames else None


def _temporal(grid: LatentGrid, repeats: int, tokens: int) -> TokenLayout | None:
    """Windows of frames (as FreeNoise cuts them) are temporal too, so only an excess of frames is refused."""
    known = any(height * width == repeats for height, width in grid.resolutions)
    return TokenLayout(tokens, 1, 1) if known and tokens <= grid.frames else None


def _joint(grid: LatentGrid, repeats: int, tokens: int, text: TextPosition) -> TokenLayout | None:
    height, width = grid.resolutions[0]
    extra = tokens - grid.frames * height * width
    if repeats != 1 or extra < 0 or (extra > 0 and text == "none"):
        return None
    return TokenLayout(grid.frames, height, width, start=extra if text == "before" else 0, text=extra)
