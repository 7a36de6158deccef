import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ieadapt.errors import FailureError, UsageError
from ieadapt.testbed import stages
from ieadapt.testbed.checkpoint import export, load_parts, read_history, save_weights
from ieadapt.testbed.loop import Schedule, train
from ieadapt.testbed.model import TINY, build_vae, load_pipeline
from ieadapt.testbed.pool import caption_number, caption_tokens, encode, latent_pool
from ieadapt.testbed.render import render_frames
from ieadapt.testbed.scenes import SceneTensors, sample_scenes
from ieadapt.testbed.tokenizer import build_tokenizer
from ieadapt.testbed.train import main

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole recipe on a tiny model, a few iterations a stage, run twice: the second time it goes on."""
    path = tmp_path_factory.mktemp("training")
    common = ["--folder", str(path), "--size", "tiny", "--device", "cpu", "--pool", "8", "--iterations", "3"]
    batches = ["--vae-batch", "2", "--images-batch", "4", "--video-batch", "1"]
    main([*common, *batches, "--vae", "60", "--images", "60", "--video", "60"])
    main([*common, *batches, "--video", "60", "--seed", "1", "--export", str(path / "pipeline")])
    return path


def test_smoke_run_leaves_weights_and_a_record(folder: Path) -> None:
    assert {path.stem for path in folder.glob("*.safetensors")} == {"vae", "text", "unet", "adapter"}
    records = read_history(folder)
    assert [record["stage"] for record in records] == ["vae", "images", "video", "video"]
    assert all(record["iterations"] == 3 for record in records)
    assert json.loads((folder / "history.json").read_text()) == records
    assert not list(folder.glob("*.part"))


def test_smoke_run_exports_a_pipeline_that_runs(folder: Path) -> None:
    pipeline = load_pipeline(folder / "pipeline")
    frames = pipeline("a big red star moving left over bricks", num_inference_steps=1, output_type="pt").frames
    assert frames.shape == (1, 16, 3, 128, 128)
    assert frames.isfinite().all()


def test_going_on_starts_from_the_weights(folder: Path) -> None:
    one, other = load_parts(folder, TINY), load_parts(folder, TINY)
    for part, same in zip(one, other, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(part.parameters(), same.parameters(), strict=True))


def test_export_names_what_is_missing(tmp_path: Path) -> None:
    save_weights(tmp_path, "vae", build_vae(TINY).state_dict())
    with pytest.raises(UsageError, match="got no text, unet, adapter"):
        export(tmp_path, tmp_path / "pipeline", TINY)


def test_latents_are_normalised_without_changing_the_picture() -> None:
    torch.manual_seed(0)
    vae = build_vae(TINY).eval()
    frames = render_frames(SceneTensors.stack(sample_scenes(4, 0)), torch.tensor([0, 3, 7, 11]))
    with torch.no_grad():
        before = vae.decode(vae.encode(frames * 2 - 1).latent_dist.mean).sample
        spread = vae.encode(frames * 2 - 1).latent_dist.std
        ratio = spread / vae.encode(frames * 2 - 1).latent_dist.mean.std((0, 2, 3))[None, :, None, None]
        stages.normalise_latents(vae, frames)
        posterior = vae.encode(frames * 2 - 1).latent_dist
        after = vae.decode(posterior.mean).sample
    assert torch.allclose(before, after, atol=1e-4)
    assert posterior.mean.mean((0, 2, 3)).abs().max() < 1e-3
    assert posterior.mean.std((0, 2, 3)) == pytest.approx(torch.ones(4), abs=1e-3)
    assert torch.allclose(posterior.std, ratio, rtol=1e-3)
    assert encode(vae, frames[None]).std() == pytest.approx(1, abs=0.1)


def test_pool_holds_captions_of_its_rows_and_is_renewed_in_turn() -> None:
    pool = latent_pool(4, build_vae(TINY).eval(), torch.Generator().manual_seed(0), CPU)
    before = pool.data.clone()
    pool.renew(2)
    assert pool.cursor == 2
    assert (pool.data[:2] != before[:2]).any()
    assert torch.equal(pool.data[2:], before[2:])


def test_caption_numbers_follow_the_captions() -> None:
    scenes = sample_scenes(20, 4, "all")
    table, tokenizer = caption_tokens(CPU), build_tokenizer()
    from ieadapt.testbed.captions import caption

    wanted = tokenizer([caption(scene) for scene in scenes], padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(table[caption_number(SceneTensors.stack(scenes))], wanted)


def test_velocity_and_signal_give_back_the_latents() -> None:
    torch.manual_seed(0)
    diffusion = stages.Diffusion(CPU)
    latents = torch.randn(64, 4, 2, 2)
    noisy, timestep, velocity = diffusion.corrupt(latents)
    signal, noise = diffusion.signal[timestep].view(-1, 1, 1, 1), diffusion.noise[timestep].view(-1, 1, 1, 1)
    assert torch.allclose(signal * noisy - noise * velocity, latents, atol=1e-5)
    assert diffusion.signal[-1] == 0
    assert timestep.float().mean() > 550


def test_loop_learns_and_leaves_the_average() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    x = torch.randn(256, 4)

    def loss() -> torch.Tensor:
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    outcome = train([model], loss, Schedule(60.0, 0.05, warmup=5, weight_decay=0.0, iterations=300), CPU)
    assert outcome.iterations == 300
    assert loss() < 0.01
    assert not model.training


def test_learning_rate_rises_and_falls() -> None:
    schedule = Schedule(10.0, 1.0, warmup=10, floor=0.2)
    assert schedule.rate(0, 0.0) == pytest.approx(0.1)
    assert schedule.rate(100, 0.0) == pytest.approx(1.0)
    assert schedule.rate(100, 10.0) == pytest.approx(0.2)


def test_loss_that_is_not_finite_stops() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(FailureError, match=r"not finite.*iteration 1"):
        train([model], lambda: model(torch.full((1, 1), torch.inf)).sum(), Schedule(5.0, 0.1), CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_step_is_captured_on_a_gpu() -> None:
    model = nn.Linear(4, 1).cuda()
    device = torch.device("cuda")

    def loss() -> torch.Tensor:
        x = torch.randn(64, 4, device=device, dtype=model.weight.dtype)
        return (model(x) - x.sum(1, keepdim=True)).float().square().mean()

    outcome = train([model], loss, Schedule(30.0, 0.02, iterations=500), device)
    assert outcome.mode == "graph"
    assert outcome.loss < 0.1
    assert model.weight.dtype == torch.float32
