"""Scores of videos of the bundled models against the scene of their caption, for every task that judges videos."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.models import known_models
from ieadapt.testbed import score_scenes


def scores_on_testbed(
    model: str,
    videos: Float[Tensor, "video frame channel height width"],
    prompts: Sequence[str],
    device: torch.device | str = "cpu",
) -> list[dict[str, float]]:
    """`testbed_NAME` -> score of each video; nothing for other models, prompts and sizes.

    Args:
        model: a bundled name, or another one.
        videos: in [0, 1].
        prompts: one a video.
        device: where they are scored; on a GPU a fit takes as long for one clip as for sixteen.

    Example:
        >>> scores_on_testbed("a folder", torch.zeros(1, 16, 3, 128, 128), ["a cat"])
        [{}]
    """
    if model not in known_models():
        return [{} for _ in prompts]
    try:
        scores = score_scenes(videos.to(device), prompts)
    except UsageError:
        if len(prompts) == 1:
            return [{}]
        # one that is no scene must not take the others with it
        each = zip(videos.split(1), prompts, strict=True)
        return [scores_on_testbed(model, video, [prompt], device)[0] for video, prompt in each]
    return [{f"testbed_{name}": value for name, value in score.as_dict().items()} for score in scores]
