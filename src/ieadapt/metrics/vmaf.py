"""VMAF: quality of a distorted clip beside its original, fitted to what viewers said of compressed video."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import FailureError
from ieadapt.metrics.clips import GREY_LEVELS, ClipSize, check_pair
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.weights import PackagedWeights

LEAST = ClipSize(1, 32, 32)
FFMPEG = PackagedWeights(
    package="imageio_ffmpeg",
    requirement="imageio-ffmpeg==0.8.1",
    file="binaries/ffmpeg-*",
    licence="GPL-3.0 (a program that is run, not linked)",
    kind="a build of ffmpeg with libvmaf",
)
MODEL = "vmaf_v0.6.1"


def vmaf(
    frames: Float[Tensor, "frame channel height width"],
    reference: Float[Tensor, "reference_frame reference_channel reference_height reference_width"],
) -> float:
    """Video multi-method assessment fusion, model v0.6.1, mean over frames; by ffmpeg's libvmaf on 8-bit yuv420p.

    Fitted to compressed and scaled full-HD video, seen from three heights of the picture. On small clips, and for other
    kinds of damage, it ranks but its scale means little. It rewards sharpening.

    Returns:
        0 to 100; higher is closer. Equal clips read about 97 or more, by how little they move.

    Raises:
        UsageError: the clips differ in size, are smaller than 32x32, are not RGB in [0, 1], or ffmpeg is not installed.
        FailureError: ffmpeg cannot compute it.

    Source: Li et al., Toward a practical perceptual video quality metric, Netflix 2016; libvmaf.
    """
    check_pair(frames, reference, "vmaf", LEAST)
    program = FFMPEG.require("vmaf")
    size = f"{frames.shape[3]}x{frames.shape[2]}"
    with tempfile.TemporaryDirectory() as folder:
        given: list[str] = []
        for name, clip in (("ours", frames), ("reference", reference)):
            Path(folder, name).write_bytes(_bytes(clip))
            given += ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", size, "-i", name]
        scaled = "scale=out_range=tv:out_color_matrix=bt709,format=yuv420p"
        graph = f"[0:v]{scaled}[a];[1:v]{scaled}[b];[a][b]libvmaf=log_fmt=json:log_path=log:model=version={MODEL}"
        words = [str(program), "-hide_banner", "-loglevel", "error", *given, "-lavfi", graph, "-f", "null", "-"]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
        log = Path(folder, "log")
        if done.returncode or not log.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise FailureError("ffmpeg cannot compute VMAF", got=last, where=program, remedy="run make weights again")
        return float(json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"])


def _bytes(frames: Float[Tensor, "frame channel height width"]) -> bytes:
    pixels = (frames * GREY_LEVELS).round().byte()
    return rearrange(pixels, "frame channel height width -> frame height width channel").contiguous().numpy().tobytes()


VMAF = Metric(
    name="vmaf",
    definition=f"quality beside the reference by libvmaf's model {MODEL}, mean over frames",
    range="0 to 100 (equal clips read about 97 or more)",
    better="higher",
    unit="",
    source="Netflix, libvmaf, by the ffmpeg of imageio-ffmpeg",
    cost="0.3 s for 16 frames of 256x256",
    aspect="structure",
    compares="pair",
    function=vmaf,
    weights=FFMPEG,
)
