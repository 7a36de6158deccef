"""A shipped report keeps its text and its pictures, in fewer bytes."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from benchmarks.study import lighter


def _pictures(page: str) -> list[Image.Image]:
    encoded = [part.split('"')[0] for part in page.split("base64,")[1:]]
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in encoded]


def test_a_lighter_report_looks_the_same() -> None:
    ramp = np.linspace(0, 240, 96)
    smooth = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 128.0), axis=-1)
    shades = (smooth + np.random.default_rng(0).uniform(0, 8, smooth.shape)).astype(np.uint8)
    drawn = io.BytesIO()
    Image.fromarray(shades).save(drawn, "PNG")
    page = f'<p>one</p><img src="data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode()}"><p>two</p>'
    light = lighter(page)
    assert (light[:10], light[-10:]) == ("<p>one</p>", "<p>two</p>")
    (picture,) = _pictures(light)
    assert picture.mode == "P"
    far = np.abs(np.asarray(picture.convert("RGB"), dtype=int) - shades)
    assert far.max() <= 24
    assert len(light) < len(page)
