"""One model is in memory, and a job that was stopped in the middle of a changed pass leaves it as it was."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ieadapt.runs.settings import GenerationConfig, Hardware
from ieadapt.tasks.perturb.run import PerturbRun, run_perturb
from ieadapt.web.app import App, ModelCache
from ieadapt.web.workspace import Workspace
from tests.runs.files import decode_video
from tests.tiny import build

CPU = Hardware(device="cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of two tiny pipelines."""
    folder = tmp_path_factory.mktemp("models")
    for family in ("animatediff", "wan"):
        build(family).save_pretrained(folder / family)
    return str(folder / "animatediff"), str(folder / "wan")


@pytest.fixture
def app(tmp_path: Path, models: tuple[str, str]) -> Iterator[App]:
    workspace = Workspace(tmp_path / "root")
    workspace.prepare()
    made = App(workspace, models)
    yield made
    made.close()


def test_another_model_takes_the_place_of_the_first(models: tuple[str, str]) -> None:
    cache = ModelCache()
    first = weakref.ref(cache.load(CPU, models[0]))
    assert cache.load(CPU, models[0]) is first()
    cache.load(CPU, models[1])
    assert first() is None
    assert type(cache.load(CPU, models[1])).__name__ == "WanPipeline"


def asked(model: str, steps: int) -> PerturbRun:
    size = GenerationConfig(steps, num_frames=5, height=16, width=24)
    return PerturbRun(model, ("a red ball",), sites="temporal", generation=size, hardware=CPU)


@pytest.mark.slow
def test_after_a_stop_in_the_middle_the_model_is_as_it_was(app: App) -> None:
    model = app.models[0]

    def video(steps: int = 2) -> bytes:
        name = app.start("perturb", run_perturb, asked(model, steps))
        assert app.queue.wait(name).state == "complete"
        return (app.workspace.folder(name) / "00-original.mp4").read_bytes()

    before = video()
    long = app.start("perturb", run_perturb, asked(model, 60))
    while app.queue.status(long).stage != "perturbed" or not app.queue.status(long).done:
        time.sleep(0.01)
        assert not app.queue.status(long).over
    app.queue.stop(long)
    assert app.queue.wait(long).state == "stopped"
    assert app.view(long).record["status"] == "partial"
    assert video() == before
    assert decode_video(before).shape == (5, 3, 16, 24)


@pytest.mark.slow
def test_twenty_runs_asked_for_at_once_are_all_made_with_one_model(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, load = [], Hardware.load
    monkeypatch.setattr(Hardware, "load", lambda hardware, model: loaded.append(model) or load(hardware, model))
    with ThreadPoolExecutor(20) as people:
        wanted = [people.submit(app.start, "perturb", run_perturb, asked(app.models[0], 1)) for _ in range(20)]
        names = {each.result() for each in wanted}
    assert len(names) == 20
    assert {app.queue.wait(name).state for name in names} == {"complete"}
    assert loaded == [app.models[0]]
    assert {name for name, _ in app.workspace.runs()} == names
