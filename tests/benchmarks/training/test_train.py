import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.training import animatediff, stages
from benchmarks.training.architecture import Architecture
from benchmarks.training.checkpoint import adopt, export, load_parts, read_history, save_weights
from benchmarks.training.loop import Schedule, Weights, processes, train
from benchmarks.training.models import ARCHITECTURES
from benchmarks.training.pool import latent_pool
from benchmarks.training.train import main
from benchmarks.training.world import TOKENS
from ieadapt.errors import FailureError, UsageError
from ieadapt.models import load, model_folder
from ieadapt.testbed.captions import captions
from ieadapt.testbed.rendering import render_batch
from ieadapt.testbed.sampling import sample_batch

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
SCENES = ARCHITECTURES["scenes"]
PARTS = {"scenes": {"vae", "text", "unet", "adapter"}, "scenes-dit": {"vae", "text", "transformer"}}


def _drawn(architecture: Architecture, n: int) -> Any:
    return sample_batch(n, torch.Generator().manual_seed(0), "all")


every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: str) -> Path:
    """The whole recipe on a tiny model, a few iterations a stage, run twice: the second time it goes on."""
    path = tmp_path_factory.mktemp("training")
    common = ["--model", model, "--folder", str(path), "--size", "tiny", "--device", "cpu"]
    common += ["--pool", "4", "--iterations", "3"]
    batches = ["--vae-batch", "1", "--images-batch", "4", "--video-batch", "1"]
    main([*common, *batches, "--vae", "600", "--images", "600", "--video", "600"])
    main([*common, *batches, "--video", "600", "--seed", "1", "--export", str(path / "pipeline")])
    return path


@pytest.mark.slow
def test_smoke_run_leaves_weights_and_a_record(folder: Path, model: str) -> None:
    assert {path.stem for path in folder.glob("*.safetensors")} == PARTS[model]
    records = read_history(folder)
    assert [record["stage"] for record in records] == ["vae", "images", "video", "video"]
    assert all(record["iterations"] == 3 for record in records)
    assert json.loads((folder / "history.json").read_text()) == records
    assert not list(folder.glob("*.part"))


@pytest.mark.slow
def test_smoke_run_exports_a_pipeline_that_runs(folder: Path) -> None:
    pipeline = load(folder / "pipeline")
    frames = pipeline("a big red star moving left over bricks", num_inference_steps=1, output_type="pt").frames
    assert frames.shape == (1, 16, 3, 128, 128)
    assert frames.isfinite().all()


@pytest.mark.slow
def test_going_on_starts_from_the_weights(folder: Path, model: str) -> None:
    one, other = (load_parts(ARCHITECTURES[model], folder, "tiny").denoisers["video"] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_export_names_what_is_missing(tmp_path: Path) -> None:
    save_weights(tmp_path, "vae", animatediff.build_vae(animatediff.TINY).state_dict())
    with pytest.raises(UsageError, match="got no text, unet, adapter"):
        export(SCENES, tmp_path, tmp_path / "pipeline", "tiny")


@pytest.mark.slow
def test_pipeline_folder_becomes_a_training_folder_again(tmp_path: Path) -> None:
    shipped = model_folder("scenes")
    adopt(SCENES, shipped, tmp_path)
    modules = load_parts(SCENES, tmp_path).modules
    pipeline = load(shipped)
    assert set(modules) == PARTS["scenes"]
    for name, component in (("vae", pipeline.vae), ("text", pipeline.text_encoder)):
        expected = component.state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in modules[name].state_dict().items())


def test_blocks_are_compiled_one_by_one() -> None:
    denoiser = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]), "head": nn.Linear(2, 2)})
    stages.COMPILED["none"](denoiser)
    assert denoiser["blocks"][0]._compiled_call_impl is None
    stages.COMPILED["blocks"](denoiser)
    assert all(block._compiled_call_impl is not None for block in denoiser["blocks"])
    assert denoiser["head"]._compiled_call_impl is None


@every_architecture
def test_latents_are_normalised_without_changing_the_picture(architecture: Architecture) -> None:
    torch.manual_seed(0)
    vae = architecture.build(architecture.widths["tiny"])["vae"].eval()
    rows = architecture.vae_rows(_drawn(architecture, 4))
    channels = [axis for axis in range(rows.dim()) if axis != 1]
    with torch.no_grad():
        before = vae.encode(rows * 2 - 1).latent_dist
        picture = vae.decode(before.mean).sample
        architecture.normalise(vae, rows)
        after = vae.encode(rows * 2 - 1).latent_dist
        rebuilt = vae.decode(after.mean).sample
    assert torch.allclose(picture, rebuilt, atol=1e-4)
    spread = before.mean.std(channels, keepdim=True)
    assert after.mean.std(channels) == pytest.approx(torch.ones(spread.numel()), abs=1e-3)
    assert torch.allclose(after.std, before.std / spread, rtol=1e-3)
    if not architecture.centring:
        assert after.mean.mean(channels).abs().max() < 1e-3


@every_architecture
def test_clips_are_encoded_and_decoded_frame_for_frame(architecture: Architecture) -> None:
    torch.manual_seed(0)
    vae = architecture.build(architecture.widths["tiny"])["vae"].eval()
    clips = render_batch(_drawn(architecture, 2))
    latents = architecture.encode(vae, clips)
    assert latents.shape[0] == 2
    assert architecture.decode(vae, latents).shape == clips.shape


def test_pool_holds_captions_of_its_rows_and_is_renewed_in_turn() -> None:
    vae = animatediff.build_vae(animatediff.TINY).eval()
    pool = latent_pool(SCENES, 4, vae, torch.Generator().manual_seed(0), CPU)
    before = pool.data.clone()
    pool.renew(2)
    assert pool.cursor == 2
    assert (pool.data[:2] != before[:2]).any()
    assert torch.equal(pool.data[2:], before[2:])


@every_architecture
def test_every_caption_is_whole_words_and_fits(architecture: Architecture) -> None:
    tokenizer = architecture.tokenizer()
    said = captions(_drawn(architecture, 300))
    for caption, row in zip(said, tokenizer(said).input_ids, strict=True):
        assert len(caption.split()) < len(row) <= len(caption.split()) + 2
        assert len(row) <= TOKENS == tokenizer.model_max_length


def test_gradients_are_clipped_as_one() -> None:
    model = nn.Linear(3, 2)
    weights = Weights([model], torch.float32, 0.05)
    model(torch.full((1, 3), 5.0)).sum().backward()
    wanted = [parameter.grad.clone() for parameter in model.parameters()]
    weights.take_gradients()
    weights.give_gradients()
    norm = torch.cat([value.flatten() for value in wanted]).norm()
    for parameter, value in zip(model.parameters(), wanted, strict=True):
        assert torch.allclose(parameter.grad, value / norm, atol=1e-5)


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(tmp_path: Path) -> None:
    """Each draws noise and data of its own; averaged gradients keep their weights alike."""
    script = tmp_path / "job.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import torch, torch.distributed as dist\n"
        "from benchmarks.training.loop import Schedule, train, processes\n"
        "dist.init_process_group('gloo'); rank = dist.get_rank(); torch.manual_seed(rank)\n"
        "model = torch.nn.Linear(3, 1)\n"
        "loss = lambda: (model(torch.randn(8, 3)) - 1).square().mean()\n"
        "train([model], [loss], Schedule(60.0, 0.05, warmup=2, iterations=7), torch.device('cpu'))\n"
        "assert processes() == 2\n"
        "torch.save(model.weight.detach(), f'{sys.argv[1]}/{rank}.pt')\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launch, str(script), str(tmp_path)], check=True, timeout=120, capture_output=True)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(one, other)
    assert processes() == 1


@every_architecture
def test_velocity_and_signal_give_back_the_latents(architecture: Architecture) -> None:
    torch.manual_seed(0)
    diffusion = stages.Diffusion(architecture, CPU)
    latents = torch.randn(64, 4, 2, 2)
    noisy, timestep, velocity = diffusion.corrupt(latents)
    signal, noise = diffusion.signal[timestep].view(-1, 1, 1, 1), diffusion.noise[timestep].view(-1, 1, 1, 1)
    assert torch.allclose(signal * noisy - noise * velocity, latents, atol=1e-5)
    assert diffusion.signal[-1] == 0
    assert timestep.float().mean() > 520


def test_loop_learns_and_leaves_the_average() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    x = torch.randn(256, 4)

    def loss() -> torch.Tensor:
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    outcome = train([model], [loss], Schedule(60.0, 0.05, warmup=5, weight_decay=0.0, iterations=300), CPU)
    assert outcome.iterations == 300
    assert loss() < 0.01
    assert not model.training


def test_losses_take_turns() -> None:
    model, seen = nn.Linear(1, 1), []

    def loss(name: str) -> torch.Tensor:
        seen.append(name)
        return model(torch.ones(1, 1)).sum()

    one, other = functools.partial(loss, "one"), functools.partial(loss, "other")
    train([model], [one, one, other], Schedule(60.0, 0.1, iterations=6), CPU)
    assert seen == ["one", "one", "other"] * 2


def test_learning_rate_rises_and_falls() -> None:
    schedule = Schedule(10.0, 1.0, warmup=10, floor=0.2)
    assert schedule.rate(0, 0.0) == pytest.approx(0.1)
    assert schedule.rate(100, 0.0) == pytest.approx(1.0)
    assert schedule.rate(100, 10.0) == pytest.approx(0.2)


def test_loss_that_is_not_finite_stops() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(FailureError, match=r"not finite.*iteration 1"):
        train([model], [lambda: model(torch.full((1, 1), torch.inf)).sum()], Schedule(5.0, 0.1), CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_step_is_captured_on_a_gpu() -> None:
    model = nn.Linear(4, 1).cuda()
    device = torch.device("cuda")

    def loss() -> torch.Tensor:
        x = torch.randn(64, 4, device=device, dtype=model.weight.dtype)
        return (model(x) - x.sum(1, keepdim=True)).float().square().mean()

    outcome = train([model], [loss], Schedule(30.0, 0.02, iterations=500), device)
    assert outcome.mode == "graph"
    assert outcome.loss < 0.1
    assert model.weight.dtype == torch.float32
