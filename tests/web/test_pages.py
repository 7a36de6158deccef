"""What pages show of runs, without a browser: everything escaped, every outcome of a run in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ieadapt.errors import UsageError
from ieadapt.files import record_text
from ieadapt.runs.flags import flags
from ieadapt.runs.folder import open_run
from ieadapt.runs.settings import Hardware
from ieadapt.runs.videos import encode_video
from ieadapt.tasks.edit.config import EditRun
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.measure.run import MeasureRun, run_measure
from ieadapt.web import runs, videos
from ieadapt.web.app import App, RunView
from ieadapt.web.edit import EDIT
from ieadapt.web.forms import Form, model_field, prompts_field
from ieadapt.web.jobs import Status
from ieadapt.web.page import Panel
from ieadapt.web.rendering import message_of, render
from ieadapt.web.workspace import Workspace

HTML = "<img src=x onerror=alert(1)>${1+1}{{7*7}}"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    workspace = Workspace(tmp_path / "root")
    workspace.prepare()
    made = App(workspace, ("scenes",))
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
        run.note(results=[HTML], repeat={"Python": HTML})
    shown = videos.show_perturbed(app, app.view("perturb-1"))
    profile(10.0).save(app.workspace.root / "perturb-1")
    for html in (shown, runs.listed(app), videos.pickable(app, "perturb-1", ())):
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
    states = {name: app.view(name).status for name in ("done", "stopped", "failed", "left")}
    assert [status.state for status in states.values()] == ["complete", "stopped", "failed", "stopped"]
    assert states["left"].message == "The server ended while this run was going on."
    assert "/home" not in states["failed"].message
    with pytest.raises(UsageError, match="there is no such run"):
        app.view("never")


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
    assert "Both have the same settings." in runs.differences_of(app, "a", "a")


def test_an_empty_folder_of_runs_says_how_to_begin(app: App) -> None:
    assert "No runs yet" in runs.listed(app)
    assert "Measure a prompt first" in videos.pickable(app, "", ())


def test_a_model_for_which_the_memory_will_not_do_is_refused_before_its_job_waits(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ieadapt.models.memory.free_memory", lambda device: 1_000_000)
    asked = MeasureRun("scenes", ("a red star",), hardware=Hardware(device="cpu"))
    with pytest.raises(UsageError, match="the model's weights are too large for the memory"):
        app.start("measure", run_measure, asked)
    assert app.workspace.runs() == []


def test_a_record_of_another_form_is_listed_with_a_note(app: App) -> None:
    (app.workspace.root / "study").mkdir()
    (app.workspace.root / "study" / "config.json").write_text('{"format": 1, "workflow": "study"}')
    words = "<td>study<br><small>The record of this run cannot be read; got no &#39;status&#39; in it;"
    assert words in runs.listed(app)


def test_videos_of_two_runs_are_compared_by_metrics(app: App) -> None:
    for name, shade in (("a", 0.2), ("b", 0.4)):
        with open_run(app.workspace.root / name, "enhance", {"prompts": ["a"]}) as run:
            for part in ("plain", "enhanced"):
                run.write(f"00-{part}.mp4", encode_video(torch.full((4, 3, 32, 32), shade)))
    root = app.workspace.root
    name = app.start("evaluate", runs.run_comparison, runs.Comparison(f"{root}/a:enhanced", f"{root}/b:enhanced"))
    assert app.queue.wait(name).state == "complete"
    shown = runs.show(app, app.view(name))
    assert "The videos of B against those of A" in shown
    assert "psnr" in shown
    assert str(root) not in shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
SOUND = {
    **{
        "format": 1,
        "workflow": "measure",
        "status": "complete",
        "error": None,
        "command": "ieadapt",
        "files": ["a.png"],
    },
    **{
        "config": {"prompts": ["a"], "model": "scenes"},
        "started": "2026-01-01T00:00:00",
        "seconds": 3.0,
        "results": ["b"],
    },
    **{"sites": ["c"], "repeat": {"Python": "d"}},
}
WHOLE = (
    "",
    "{",
    "[]",
    "null",
    "7",
    '"a"',
    "[" * 100_000,
    "{}",
    '{"format": 1}',
    '{"format": 2, "workflow": "measure"}',
)


def shown(app: App, run: RunView) -> str:
    return render("maps.html.j2", run=run, label="", pictures=())


@pytest.fixture
def panel(app: App) -> Panel:
    with gr.Blocks():
        return Panel(app, "measure", shown)


def seen_everywhere(app: App, panel: Panel) -> None:
    """The list of runs is there, the sound run in it, and pages of the other run say something or show it."""
    listed = runs.listed(app)
    assert '<a href="/?run=sound">' in listed
    assert listed.count("<tr>") == 3
    assert app.workspace.profiles()
    outputs = panel.view("odd")
    json.dumps(outputs, ensure_ascii=False, default=str).encode()


@pytest.mark.parametrize("content", [*map(str.encode, WHOLE), b"\xff\xfe", b"\x00"])
def test_one_odd_record_leaves_the_other_runs_to_be_seen(app: App, panel: Panel, content: bytes) -> None:
    for name, record in (("sound", json.dumps(SOUND).encode()), ("odd", content)):
        (app.workspace.root / name).mkdir()
        (app.workspace.root / name / "config.json").write_bytes(record)
    seen_everywhere(app, panel)
    assert "<td>odd<br><small>" in runs.listed(app)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(part=st.sampled_from([*SOUND, "prompts", "model"]), value=JSON)
def test_a_record_with_anything_in_any_of_its_parts_leaves_the_other_runs_to_be_seen(
    app: App, panel: Panel, part: str, value: object
) -> None:
    odd = {**SOUND, part: value} if part in SOUND else {**SOUND, "config": {**SOUND["config"], part: value}}
    for name, record in (("sound", SOUND), ("odd", odd)):
        (app.workspace.root / name).mkdir(exist_ok=True)
        (app.workspace.root / name / "config.json").write_text(json.dumps(record))
    seen_everywhere(app, panel)


def test_every_run_that_pages_show_is_opened_from_the_list(app: App) -> None:
    config = {"model": "scenes", "generation": {"seed": 1}, "seed": 0, "hardware": {}}
    for workflow in ("measure", "perturb", "enhance", "edit", "evaluate"):
        with open_run(app.workspace.root / f"{workflow}-1", workflow, {**config, "prompts": ["a", "b"]}):
            pass
    for name, prompt in (("maps-1", "a"), ("maps-2", "of a run that is gone")):
        with open_run(app.workspace.root / name, "maps", {**config, "prompts": [prompt], "site": "x"}):
            pass
    listed = runs.listed(app)
    for address in ("/?run=measure-1", "/perturb?run=perturb-1", "/enhance?run=enhance-1", "/edit?run=edit-1"):
        assert f'<a href="{address}">' in listed
    assert '<a href="/runs?run=evaluate-1">' in listed
    assert '<a href="/?run=measure-1&amp;maps=maps-1">' in listed
    assert '<a href="/?maps=maps-2">' in listed


FORMS = {MeasureRun: ("steps",), **{each.config: each.shown for each in (videos.PERTURB, videos.ENHANCE, EDIT)}}


@pytest.mark.parametrize("config", FORMS)
def test_errors_name_fields_as_the_form_does(config: type) -> None:
    with gr.Blocks():
        fields = [prompts_field("Edit to" if config is EditRun else "Prompts", "", "a star"), model_field(["scenes"])]
        form = Form(config, fields, FORMS[config], ["profile", "video", "jobs", "cache", "source_seed"])
    names = {name for flag in flags(config) for name in (flag.name, *flag.path) if "_" in name}
    fixed = {"source_seed": 0} if config is EditRun else {}
    refused = 0
    for field in form.fields:
        for bad in ("-1", "0", "xxxx", "1e12", "nan", "cross:", "top=0:"):
            raw = [bad if each is field else each.component.value for each in form.fields]
            try:
                form.config_of(raw, **fixed)
            except UsageError as error:
                words = message_of(error, form.labels)
                refused += 1
                assert "--" not in words
                assert not [name for name in names if name in words], words
    assert refused > 10


def test_errors_of_a_run_name_fields_as_the_form_does(app: App) -> None:
    def refuse(config: object, out: Path, stages: object, load: object) -> None:
        raise UsageError(
            "num_frames must be 8k+1", got=9, where="--source-prompt", remedy="lower --frames or edit_start"
        )

    labels = {"num_frames": "Frames", "source_prompt": "What it shows", "edit_start": "Edit start"}
    name = app.start("edit", refuse, MeasureRun("scenes", ("a",)), labels)
    words = "“Frames” must be 8k+1; got 9; in “What it shows”; remedy: lower “Frames” or “Edit start”."
    assert app.queue.wait(name).message == words
