"""How well a clip keeps to its reference: by pixels, by local structure, by what viewers said, by learned features."""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import FailureError
from ieadapt.metrics.metric import GREY_LEVELS, ClipSize, Frames, Metric
from ieadapt.metrics.networks.lpips import ALEXNET, VGG16, ShiftTolerantLPIPS, load_lpips, mean_distance
from ieadapt.metrics.weights import PackagedWeights, UserWeights, WeightSet, load_network

CEILING = 100.0
"""Decibels that PSNR reads at most."""
VMAF_MODEL = "vmaf_v0.6.1"
_BATCH = 8
_BORDER = 5
_LEAST_SIDE = 64
_similarity = partial(Metric, aspect="structure", compares="pair", better="higher")
_distance = partial(Metric, aspect="structure", compares="pair", better="lower")


@partial(
    _similarity,
    definition="peak signal-to-noise ratio to the reference, of the mean squared error over the whole clip",
    range="0 to 100 (equal clips read 100)",
    unit="dB",
    source="torchmetrics, peak_signal_noise_ratio",
    cost="2 ms for 16 frames of 64x64",
    least=ClipSize(1, 1, 1),
)
def psnr(frames: Frames, reference: Frames) -> float:
    """Peak signal-to-noise ratio over the whole clip, in dB: -10 log10 of the mean squared error of colours in [0, 1].

    The error is averaged over all frames before the logarithm, so one equal frame does not lift the clip. Values above
    100 dB, and the infinity of equal clips, read 100, so that means over clips stay finite. It counts pixels: a shift
    by one, which no eye would see, costs much.

    Returns:
        0 (black against white) to 100 dB; higher is closer.

    Raises:
        UsageError: the clips differ in size, or are not RGB in [0, 1].

    Source: torchmetrics, `peak_signal_noise_ratio`.

    Example:
        >>> import torch
        >>> round(psnr(torch.full((2, 3, 4, 4), 0.6), torch.full((2, 3, 4, 4), 0.5)), 2)
        20.0
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio  # importing it takes seconds

    return min(float(peak_signal_noise_ratio(frames.double(), reference.double(), data_range=1.0)), CEILING)


def region_psnr(frames: Frames, reference: Frames, region: Bool[Tensor, "frame height width"]) -> float:
    """PSNR over some pixels of every frame, in dB up to 100; an empty region reads 100.

    Example:
        >>> black, white = torch.zeros(1, 3, 1, 2), torch.ones(1, 3, 1, 2)
        >>> white[..., 0] = 0.1
        >>> round(region_psnr(white, black, torch.tensor([[[True, False]]])), 3)
        20.0
    """
    errors = (frames.double() - reference.double()).square().mean(dim=1)[region]
    error = float(errors.mean()) if len(errors) else 0.0
    return min(-10 * math.log10(max(error, 1e-12)), CEILING)


@partial(
    _similarity,
    definition="structural similarity to the reference, mean over frames, with a Gaussian 11x11 window",
    range="-1 to 1 (equal clips read 1)",
    source="Wang et al., IEEE TIP 2004; torchmetrics, structural_similarity_index_measure",
    cost="0.05 s for 16 frames of 64x64",
    least=ClipSize(1, 11, 11),
)
def ssim(frames: Frames, reference: Frames) -> float:
    """Structural similarity, mean over frames, channels and the pixels where its 11x11 window fits.

    Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, on colours in [0, 1], per channel. As in
    the paper, the five pixels along each border, where the window would need pixels from outside, are left out
    (torchmetrics' own mean counts them, over mirrored pixels).

    Returns:
        -1 to 1; 1 only for equal clips; higher is closer.

    Raises:
        UsageError: the clips differ in size, are smaller than 11x11, or are not RGB in [0, 1].

    Source: Wang et al., Image quality assessment: from error visibility to structural similarity, IEEE TIP 2004;
    torchmetrics, `structural_similarity_index_measure`.

    Example:
        >>> frames = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
        >>> round(ssim(frames, frames), 4)
        1.0
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    inner = slice(_BORDER, -_BORDER)
    values = []
    for ours, theirs in zip(frames.split(_BATCH), reference.split(_BATCH), strict=True):
        _, pixels = structural_similarity_index_measure(ours, theirs, data_range=1.0, return_full_image=True)
        values.append(pixels[..., inner, inner].mean(dim=(1, 2, 3)))
    return float(torch.cat(values).double().mean())


@partial(
    _similarity,
    definition="multi-scale structural similarity to the reference over five scales, mean over frames",
    range="0 to 1 (equal clips read 1)",
    source="Wang et al., Asilomar 2003; torchmetrics, multiscale_structural_similarity_index_measure",
    cost="2 s for 16 frames of 256x256",
    least=ClipSize(1, 176, 176),
)
def ms_ssim(frames: Frames, reference: Frames) -> float:
    """Multi-scale structural similarity, mean over frames: SSIM's contrast and structure at five halvings.

    Weights of the five scales 0.0448, 0.2856, 0.3001, 0.2363, 0.1333; Gaussian window of sigma 1.5 and 11 pixels, which
    must still fit at the coarsest scale: frames of 176x176 pixels or more. Negative structure at a scale counts as 0.

    Returns:
        0 to 1; 1 only for equal clips; higher is closer.

    Raises:
        UsageError: the clips differ in size, are smaller than 176x176, or are not RGB in [0, 1].

    Source: Wang et al., Multiscale structural similarity for image quality assessment, Asilomar 2003; torchmetrics,
    `multiscale_structural_similarity_index_measure`.

    Example:
        >>> frames = torch.rand(1, 3, 176, 176, generator=torch.Generator().manual_seed(0))
        >>> round(ms_ssim(frames, frames), 4)
        1.0
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure

    pairs = zip(frames.split(1), reference.split(1), strict=True)
    values = [float(measure(ours, theirs, data_range=1.0, normalize="relu")) for ours, theirs in pairs]
    return sum(values) / len(values)


@partial(
    _similarity,
    definition=f"quality beside the reference by libvmaf's model {VMAF_MODEL}, mean over frames",
    range="0 to 100 (equal clips read about 97 or more)",
    source="Netflix, libvmaf, by the ffmpeg of imageio-ffmpeg",
    cost="0.3 s for 16 frames of 256x256",
    least=ClipSize(1, 32, 32),
    weights=PackagedWeights(
        package="imageio_ffmpeg",
        requirement="imageio-ffmpeg==0.8.1",
        file="binaries/ffmpeg-*",
        licence="GPL-3.0 (a program that is run, not linked)",
        kind="a build of ffmpeg with libvmaf",
    ),
)
def vmaf(frames: Frames, reference: Frames, ffmpeg: Path) -> float:
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
    raw = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{frames.shape[3]}x{frames.shape[2]}"]
    scaled = "scale=out_range=tv:out_color_matrix=bt709,format=yuv420p"
    graph = f"[0:v]{scaled}[a];[1:v]{scaled}[b];[a][b]libvmaf=log_fmt=json:log_path=log:model=version={VMAF_MODEL}"
    command = [str(ffmpeg), "-hide_banner", "-loglevel", "error", *raw, "-i", "clip", *raw, "-i", "reference"]
    with tempfile.TemporaryDirectory() as folder:
        for name, clip in (("clip", frames), ("reference", reference)):
            pixels = (clip * GREY_LEVELS).round().byte().movedim(1, -1).contiguous()
            Path(folder, name).write_bytes(pixels.numpy().tobytes())
        command += ["-lavfi", graph, "-f", "null", "-"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
        log = Path(folder, "log")
        if done.returncode or not log.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise FailureError("ffmpeg cannot compute VMAF", got=last, where=ffmpeg, remedy="run make weights again")
        return float(json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"])


@partial(
    _distance,
    definition="shift-tolerant LPIPS (AlexNet) to the reference, mean over frames; not comparable with LPIPS",
    range="0 upwards (equal clips read 0, unrelated photographs about 0.7)",
    source="Ghildyal and Liu, ECCV 2022",
    cost="0.6 s for 16 frames of 64x64",
    least=ClipSize(1, 8, 8),
    weights=PackagedWeights(
        "stlpips_pytorch", "stlpips_pytorch==0.0.2", "weights/vST0.0/alex_shift_tolerant.pth", "BSD-2-Clause"
    ),
)
def st_lpips(frames: Frames, reference: Frames, weights: Path) -> float:
    """Shift-tolerant LPIPS (AlexNet), mean over frames.

    A weighted squared distance of unit-length features at five depths of an AlexNet that blurs before it subsamples.
    Frames whose shorter side is under 64 pixels are enlarged to 64 first: the weights were fitted to 64x64 patches.

    Returns:
        0 (equal clips) upwards, unrelated photographs about 0.7; lower is closer.

    Raises:
        UsageError: the clips differ in size, are smaller than 8x8, not RGB in [0, 1], or the weights are not installed.
        FailureError: the weights cannot be read.

    Source: Ghildyal and Liu, Shift-tolerant perceptual similarity metric, ECCV 2022; weights of stlpips_pytorch 0.0.2.
    """
    height, width = frames.shape[2:]
    factor = _LEAST_SIDE / min(height, width)
    if factor > 1:
        size = round(height * factor), round(width * factor)
        frames, reference = (F.interpolate(clip, size, mode="bilinear") for clip in (frames, reference))
    return mean_distance(load_network(ShiftTolerantLPIPS, weights), frames, reference)


@partial(
    _distance,
    definition="LPIPS (AlexNet, heads 0.1) to the reference, mean over frames",
    range="0 to about 1 (equal clips read 0)",
    source="Zhang et al., CVPR 2018; heads as torchmetrics carries them",
    cost="0.3 s for 16 frames of 64x64",
    least=ClipSize(1, 64, 64),
    weights=UserWeights(
        (WeightSet("lpips_alex", "AlexNet's ImageNet weights", "the file alexnet-owt-7be5be79.pth of torchvision"),)
    ),
)
def lpips_alex(frames: Frames, reference: Frames, weights: Path) -> float:
    """Learned perceptual image patch similarity with AlexNet, heads of version 0.1, mean over frames.

    Returns:
        0 (equal clips) to about 1; lower is closer.

    Raises:
        UsageError: the clips differ in size, are smaller than 64x64, not RGB in [0, 1], or no weights were given.
        FailureError: the weights cannot be read.

    Source: Zhang et al., The unreasonable effectiveness of deep features as a perceptual metric, CVPR 2018.
    """
    return mean_distance(load_lpips(ALEXNET, weights), frames, reference)


@partial(
    _distance,
    definition="LPIPS (VGG16, heads 0.1) to the reference, mean over frames",
    range="0 to about 1 (equal clips read 0)",
    source="Zhang et al., CVPR 2018; heads as torchmetrics carries them",
    cost="2 s for 16 frames of 64x64",
    least=ClipSize(1, 32, 32),
    weights=UserWeights(
        (WeightSet("lpips_vgg", "VGG16's ImageNet weights", "the file vgg16-397923af.pth of torchvision"),)
    ),
)
def lpips_vgg(frames: Frames, reference: Frames, weights: Path) -> float:
    """Learned perceptual image patch similarity with VGG16, heads of version 0.1, mean over frames.

    Returns:
        0 (equal clips) to about 1; lower is closer.

    Raises:
        UsageError: the clips differ in size, are smaller than 32x32, not RGB in [0, 1], or no weights were given.
        FailureError: the weights cannot be read.

    Source: Zhang et al., The unreasonable effectiveness of deep features as a perceptual metric, CVPR 2018.
    """
    return mean_distance(load_lpips(VGG16, weights), frames, reference)


METRICS = (psnr, ssim, ms_ssim, vmaf, st_lpips, lpips_alex, lpips_vgg)
