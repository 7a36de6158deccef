"""What happens in the steps of an edit: guidance per row, the source held in place, its correction handed on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ieadapt.attention import DenoiserCall, StepWindow
from ieadapt.errors import FailureError
from ieadapt.tasks.edit.change_mask import ChangeMask
from ieadapt.tasks.edit.noise_path import Latents, NoisePath
from ieadapt.tasks.edit.path_run import PathScheduler
from ieadapt.tasks.edit.source_path import SourcePath


@dataclass(frozen=True)
class Tied:
    """Steps of a batch [source, target, ...]: the source goes where it must, the targets where they are led.

    After a step the source is put back on its path. What that took, times `residual`, is added to the targets: it is
    the part of the step's error that both share. With a noised source and `residual` 1 this is FlowEdit, written as
    the difference of target and source. Outside the mask the targets take the source's latents.

    Attributes:
        source: where the source must be.
        residual: 0..1.
        mask: what may change, or None.
    """

    source: SourcePath
    residual: float
    mask: ChangeMask | None

    def __call__(self, path: NoisePath, step: int, latents: Latents, prediction: Latents) -> Latents:
        """The latents at the beginning of the next step."""
        stepped = path.forward(step, latents, prediction)
        end, following = self.source.end(step).to(latents), self.source.begin(step + 1).to(latents)
        targets = stepped[1:] + self.residual * (end - stepped[:1]) + (following - end)
        if self.mask is not None:
            changing = self.mask.now().to(latents)
            targets = changing * targets + (1 - changing) * following
        return torch.cat([following, targets])


class RowGuidance:
    """Gives every row of a batch its own weight of classifier-free guidance, whatever the pipeline's is.

    The pipeline computes `u + w (c - u)`. For a row with weight v the unconditional prediction u is replaced by
    `(u (1 - v) + (v - w) c) / (1 - w)`, which makes that sum `u + v (c - u)`.

    Args:
        scheduler: knows the step.
        pipeline_scale: w, above 1.
        weights: v of each row of a branch.
        window: the part of the whole run in which they hold; outside v is 1.
    """

    def __init__(
        self, scheduler: PathScheduler, pipeline_scale: float, weights: list[float], window: StepWindow
    ) -> None:
        self._scheduler, self._scale, self._weights, self._window = scheduler, pipeline_scale, weights, window
        self._cond: Tensor | None = None
        self._cond_step = -1

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> Tensor | None:
        """The prediction with its unconditional rows changed, or None."""
        guided = self._window.contains(self._scheduler.step_index, len(self._scheduler.path))
        weights = [weight if guided else 1.0 for weight in self._weights]
        cond, uncond = (call.rows.denoiser_rows((branch,)) for branch in ("cond", "uncond"))
        if cond:
            self._cond, self._cond_step = prediction[cond], call.step
        if not uncond or all(weight == self._scale for weight in weights):
            return None
        if self._cond is None or self._cond_step != call.step:
            raise FailureError(
                "the unconditional call came before the conditional one",
                where=f"step {call.step} of {type(call.pipeline).__name__}",
                remedy="edit with a pipeline that calls cond first, as Wan and HunyuanVideo do",
            )
        wanted = torch.tensor(weights, device=prediction.device, dtype=torch.float32)
        wanted = wanted.view(-1, *[1] * (prediction.ndim - 1))
        changed = prediction.clone()
        mixed = prediction[uncond].float() * (1 - wanted) + (wanted - self._scale) * self._cond.float()
        changed[uncond] = (mixed / (1 - self._scale)).to(prediction.dtype)
        return changed

    def __repr__(self) -> str:
        return f"guidance {self._weights} by row"
