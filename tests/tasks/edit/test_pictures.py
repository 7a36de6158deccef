"""Rows of frames show the frames unchanged, under their labels."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ieadapt.errors import UsageError
from ieadapt.tasks.edit.pictures import rows_of_frames


def test_frames_stand_in_rows_unchanged() -> None:
    clip = torch.arange(16)[:, None, None, None].expand(16, 3, 20, 30) / 255
    picture = np.asarray(Image.open(io.BytesIO(rows_of_frames({"source": clip, "edit": 1 - clip}, count=4))))
    assert picture.shape == (2 * (20 + 18 + 4), 4 * 34 - 4, 3)
    assert [int(picture[25, column, 0]) for column in (0, 34, 68, 102)] == [0, 5, 10, 15]
    assert [int(picture[67, column, 0]) for column in (0, 34, 68, 102)] == [255, 250, 245, 240]
    assert (picture[25, 30:34] == 255).all()
    assert picture[:18, :40].min() < 120  # a label


def test_a_short_clip_gives_a_short_row() -> None:
    picture = Image.open(io.BytesIO(rows_of_frames({"a": torch.zeros(3, 3, 8, 8)}, count=8)))
    assert picture.size == (3 * 12 - 4, 8 + 18 + 4)


def test_unequal_clips_are_refused() -> None:
    with pytest.raises(UsageError, match="clips of one shape; got"):
        rows_of_frames({"a": torch.zeros(3, 3, 8, 8), "b": torch.zeros(4, 3, 8, 8)})
    with pytest.raises(UsageError, match="got no clip"):
        rows_of_frames({})
