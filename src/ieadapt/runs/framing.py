"""How a picture of any size becomes the size that a model takes: cut to its shape, or whole with black bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

Fitting = Literal["crop", "fit"]
FITTINGS: tuple[Fitting, ...] = ("crop", "fit")
"""`crop` fills the frame and loses the overhang on two sides; `fit` keeps all and adds black bars."""


@dataclass(frozen=True)
class Framing:
    """Which part of a picture goes where in a frame.

    Attributes:
        picture: (width, height) of the picture as it is stored.
        frame: (width, height) of the frame.
        kept: the part of the picture that is shown: left, upper, right, lower, in its pixels.
        shown: (width, height) that this part takes in the frame, centred; the rest is black.

    Example:
        >>> Framing.of((1920, 1080), (128, 128), "crop").kept
        (420.0, 0.0, 1500.0, 1080.0)
        >>> Framing.of((1920, 1080), (128, 128), "fit").shown
        (128, 72)
    """

    picture: tuple[int, int]
    frame: tuple[int, int]
    kept: tuple[float, float, float, float]
    shown: tuple[int, int]

    @classmethod
    def of(
        cls, picture: tuple[int, int], frame: tuple[int, int], fitting: Fitting, pixel_aspect: float = 1.0
    ) -> Framing:
        """The framing of a picture whose pixels are `pixel_aspect` times as wide as high."""
        wide, high = picture[0] * pixel_aspect, float(picture[1])
        if fitting == "crop":
            scale = max(frame[0] / wide, frame[1] / high)
            width, height = frame[0] / scale / pixel_aspect, frame[1] / scale
            left, upper = (picture[0] - width) / 2, (picture[1] - height) / 2
            kept = (max(left, 0.0), max(upper, 0.0), min(left + width, picture[0]), min(upper + height, picture[1]))
            return cls(picture, frame, kept, frame)
        scale = min(frame[0] / wide, frame[1] / high)
        shown = max(1, min(frame[0], round(wide * scale))), max(1, min(frame[1], round(high * scale)))
        return cls(picture, frame, (0.0, 0.0, float(picture[0]), float(picture[1])), shown)

    def __str__(self) -> str:
        """In words: what is kept of the picture, and the size of the frame."""
        left, upper, right, lower = self.kept
        width, height = round(right - left), round(lower - upper)
        part = "whole picture" if (width, height) == self.picture else f"middle {width}x{height}"
        bars = "" if self.shown == self.frame else " with black bars"
        return f"{part} of {self.picture[0]}x{self.picture[1]} as {self.frame[0]}x{self.frame[1]}{bars}"

    def apply(
        self, picture: UInt8[np.ndarray, "picture_height picture_width 3"]
    ) -> Float[Tensor, "channel height width"]:
        """The frame, in [0, 1]; a picture that already has its size is not touched."""
        if self.picture == self.frame:
            return _tensor(picture)
        part = Image.fromarray(picture).resize(self.shown, Image.Resampling.LANCZOS, box=self.kept)
        if self.shown == self.frame:
            return _tensor(np.asarray(part))
        board = Image.new("RGB", self.frame)
        board.paste(part, ((self.frame[0] - self.shown[0]) // 2, (self.frame[1] - self.shown[1]) // 2))
        return _tensor(np.asarray(board))


def _tensor(picture: UInt8[np.ndarray, "height width 3"]) -> Float[Tensor, "channel height width"]:
    return rearrange(torch.from_numpy(picture.copy()).float() / 255, "height width channel -> channel height width")
