"""What pages show of runs, without a browser: everything escaped, every outcome of a run in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ieadapt.errors import UsageError
from ieadapt.files import record_text
from ieadapt.methods import EntropyProfile
from ieadapt.runs import encode_video, open_run
from ieadapt.runs.measuring import MeasureRun
from ieadapt.runs.pipelines import Hardware
from ieadapt.web.app import App
from ieadapt.web.jobs import Status
from ieadapt.web.pages import measure, perturb, runs
from ieadapt.web.rendering import render
from ieadapt.web.workspace import Workspace

HTML = "<img src=x onerror=alert(1)>${1+1}{{7*7}}"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    workspace = Workspace(tmp_path / "root")
    workspace.prepare()
    made = App(workspace, ("shapes",))
    yield made
    made.close()


def profile(ep: float) -> EntropyProfile:
    row = {"kind": "spatial", "order": 0, "head": 0, "step": 0, "branch": "cond", "videos": 1, "n_keys": 4.0}
    row |= {"entropy": 1.0, "energy": 1.0, "ep": ep}
    return EntropyProfile.from_rows([row | {"site": "a"}, row | {"site": HTML, "order": 1, "ep": 50.0}])


def test_html_in_prompts_and_names_is_text(app: App) -> None:
    with open_run(app.workspace.root / "perturb-1", "perturb", {"prompts": [HTML], "model": HTML}) as run:
        run.write(
            "perturbed.json", '[{"name": "00", "prompt": "<img src=x onerror=alert(1)>", "seed": 0, "measures": {}}]'
        )
        run.note(found=[HTML], repeat={"Python": HTML})
    shown = perturb.show(app, app.see("perturb-1"))
    profile(10.0).save(app.workspace.root / "perturb-1")
    for html in (shown, runs.listed(app), perturb.pickable(app, "perturb-1", ())):
        assert "<img src=x" not in html
        assert "&lt;img src=x onerror=alert(1)&gt;" in html


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status("waiting", 3), "<strong>Waiting.</strong> 3 jobs before this one."),
        (Status("waiting", 1), "1 job before this one."),
        (Status("running", seconds=4.2), "<strong>Loading the model</strong>"),
        (Status("running", stage="measuring", done=2, total=8, seconds=3.0, left=9.4), "step 2 of 8 · about 9 s left"),
        (Status("running", stage="<b>", done=1, total=2, seconds=70.0, left=70.0), "&lt;b&gt;"),
    ],
)
def test_progress_in_words(status: Status, words: str) -> None:
    assert words in render("progress.html.j2", status=status)


def test_a_run_is_seen_in_every_state(app: App) -> None:
    with open_run(app.workspace.root / "done", "measure", {}) as run:
        run.write("a.txt", "a")
    for name, error in (("stopped", KeyboardInterrupt()), ("failed", RuntimeError("/home/x"))):
        with pytest.raises(type(error)), open_run(app.workspace.root / name, "measure", {}) as run:
            run.write("a.txt", "a")
            raise error
    (app.workspace.root / "left").mkdir()
    record = json.loads((app.workspace.root / "done" / "config.json").read_text()) | {"status": "running"}
    (app.workspace.root / "left" / "config.json").write_text(record_text(record))
    states = {name: app.see(name).status for name in ("done", "stopped", "failed", "left")}
    assert [status.state for status in states.values()] == ["complete", "stopped", "failed", "stopped"]
    assert states["left"].words == "The server ended while this run was going on."
    assert "/home" not in states["failed"].words
    with pytest.raises(UsageError, match="there is no such run"):
        app.see("never")


def test_what_two_runs_were_asked_differently_and_how_their_entropy_differs(app: App) -> None:
    root = app.workspace.root
    for name, seed in (("a", 0), ("b", 1)):
        config = {"seed": seed, "prompts": ["x", "y"], "generation": {"height": None}, "profile": f"{root}/{name}"}
        with open_run(root / name, "measure", config) as run:
            profile(10.0 + 25.5 * seed).save(run.path)
    html = runs.differences_of(app, "a", "b")
    assert "<td>seed</td><td>0</td><td>1</td>" in html
    assert "<td>profile</td><td>a</td><td>b</td>" in html
    assert "<td>prompts</td>" not in html
    assert '<td>a</td><td class="number">10.0</td><td class="number">35.5</td><td class="number">+25.5</td>' in html
    assert str(root) not in html
    assert "Both were asked the same." in runs.differences_of(app, "a", "a")


def test_an_empty_folder_of_runs_says_how_to_begin(app: App) -> None:
    assert "No runs yet" in runs.listed(app)
    assert "Measure a prompt first" in perturb.pickable(app, "", ())


def test_a_model_for_which_the_memory_will_not_do_is_refused_before_its_job_waits(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ieadapt.models.memory.free_memory", lambda device: 1_000_000)
    asked = MeasureRun("shapes", ("a red star",), hardware=Hardware(device="cpu"))
    with pytest.raises(UsageError, match="the model's weights are too large for the memory"):
        app.start("measure", measure.measured, asked)
    assert app.workspace.runs() == []


def test_a_record_of_another_form_is_not_listed(app: App) -> None:
    (app.workspace.root / "study").mkdir()
    (app.workspace.root / "study" / "config.json").write_text('{"format": 1, "workflow": "study"}')
    assert "No runs yet" in runs.listed(app)


def test_videos_of_two_runs_are_compared_by_metrics(app: App) -> None:
    for name, shade in (("a", 0.2), ("b", 0.4)):
        with open_run(app.workspace.root / name, "enhance", {"prompts": ["a"]}) as run:
            for part in ("plain", "enhanced"):
                run.write(f"00-{part}.mp4", encode_video(torch.full((4, 3, 32, 32), shade)))
    root = app.workspace.root
    name = app.start("evaluate", runs.compared, runs.Compare(f"{root}/a:enhanced", f"{root}/b:enhanced"))
    assert app.queue.wait(name).state == "complete"
    shown = runs.show(app, app.see(name))
    assert "The videos of B against those of A" in shown
    assert "psnr" in shown
    assert str(root) not in shown
