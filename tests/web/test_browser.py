"""Each page does its job in a real browser, on the bundled model with two steps."""

from __future__ import annotations

import io
import re
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ieadapt.runs.folder import read_run
from ieadapt.runs.settings import GenerationConfig
from ieadapt.runs.videos import encode_video
from ieadapt.tasks.measure.run import MeasureRun, run_measure
from ieadapt.web.guard import Access
from ieadapt.web.server import WebConfig
from tests.web.conftest import Open, Served, free_port, serving

pytestmark = pytest.mark.slow

MIDDLE = "mid_block.motion_modules.0.transformer_blocks.0"


def start(page: Any, name: str, steps: int = 2) -> None:
    """Ask for so many steps and press the button of a page."""
    page.get_by_label("Steps", exact=True).fill(str(steps))
    page.get_by_role("button", name=name, exact=True).click()


def run_of(page: Any) -> str:
    page.wait_for_function("() => new URLSearchParams(location.search).get('run')")
    return page.evaluate("() => new URLSearchParams(location.search).get('run')")


def measured(page: Any) -> str:
    start(page, "Measure")
    page.locator(".layer").first.wait_for()
    return run_of(page)


def test_measure_a_prompt_and_look_into_a_layer_by_keyboard(browse: Open, served: Served) -> None:
    page = browse().open("/")
    page.get_by_text("Nothing measured yet").wait_for()
    name = measured(page)
    assert read_run(served.app.workspace.folder(name))["status"] == "complete"
    assert page.locator(".kind h3").all_inner_texts() == [
        "Spatial attention 10 layers",
        "Cross attention 10 layers",
        "Temporal attention 20 layers",
    ]
    page.get_by_label("Steps", exact=True).fill("7")
    page.reload()
    page.locator(".layer").first.wait_for()
    assert page.get_by_label("Steps", exact=True).input_value() == "2"

    layer = page.get_by_role("button", name=f"{MIDDLE}.attn1")
    layer.hover()
    assert re.search(rf"{MIDDLE}.attn1.*EP", page.locator(".readout").inner_text())
    layer.focus()
    page.keyboard.press("Enter")
    picture = page.locator("img.maps").first
    picture.wait_for()
    page.wait_for_function("() => document.querySelector('img.maps').naturalWidth > 300")
    page.wait_for_function("() => document.querySelector('#outcome-of-maps').getBoundingClientRect().top < innerHeight")
    assert layer.get_attribute("aria-pressed") == "true"
    page.reload()
    page.locator("img.maps").first.wait_for()
    page.get_by_text("How to repeat it").click()
    assert page.locator("pre").first.inner_text().startswith("ieadapt measure scenes --prompt 'a big red star")
    assert "ieadapt.measure(pipe" in page.locator("pre").nth(1).inner_text()


def test_perturb_layers_picked_in_the_heat_map(browse: Open, served: Served) -> None:
    page = browse().open("/")
    name = measured(page)
    page.get_by_role("link", name="Perturb these layers").click()
    page.wait_for_url(f"**/perturb?profile={name}")
    page.locator(".layer").first.wait_for()
    assert page.get_by_label("Steps", exact=True).input_value() == "2"
    for half in ("attn1", "attn2"):
        page.get_by_role("button", name=f"{MIDDLE}.{half}").click()
    sites = page.get_by_label("Sites")
    page.wait_for_function("() => document.querySelectorAll('.layer[aria-pressed=true]').length === 2")
    both = f"{MIDDLE}.attn1, {MIDDLE}.attn2"
    page.wait_for_function("([field, text]) => field.value === text", arg=[sites.element_handle(), both])
    page.wait_for_timeout(500)  # no late answer undoes it
    assert sites.input_value() == both
    start(page, "Perturb")
    page.locator(".pair").wait_for()
    record = read_run(served.app.workspace.folder(run_of(page)))
    assert record["sites"] == [f"{MIDDLE}.attn1", f"{MIDDLE}.attn2"]
    page.wait_for_function("() => [...document.querySelectorAll('.pair video')].every(v => v.currentTime > 0.2)")
    page.locator("[data-do=play]").click()
    times = page.evaluate("() => [...document.querySelectorAll('.pair video')].map(v => v.currentTime)")
    assert abs(times[0] - times[1]) < 0.15
    assert page.evaluate("() => [...document.querySelectorAll('.pair video')].every(v => v.paused)")
    page.locator("[data-do=forward]").click()
    page.wait_for_function("(before) => document.querySelector('.pair video').currentTime !== before", arg=times[0])


def test_enhance_with_the_layers_that_entropy_chooses(browse: Open, served: Served) -> None:
    page = browse().open("/enhance")
    assert page.get_by_label("Sites").first.input_value() == "auto"
    start(page, "Enhance")
    page.locator(".pair").wait_for()
    record = read_run(served.app.workspace.folder(run_of(page)))
    assert len(record["sites"]) == 10
    assert "enhanced" in page.locator(".results").inner_text()
    page.locator("[data-do=view]").click()
    page.get_by_label("before and after").fill("20")
    assert page.evaluate("() => document.querySelector('.pair').style.getPropertyValue('--cut')") == "20%"


def test_edit_a_generated_clip(browse: Open, served: Served) -> None:
    page = browse().open("/edit")
    start(page, "Edit")
    page.locator(".check").wait_for()
    assert re.search(r"Reconstruction \d\d\.\d dB", page.locator(".check").inner_text())
    assert "the edit itself is made again" in page.locator(".outcome .notice").inner_text()
    pair = page.locator(".pair").first
    assert pair.get_attribute("data-view") == "slider"
    cut = page.get_by_label("before and after").first
    cut.focus()
    page.keyboard.press("ArrowRight")
    assert pair.evaluate("pair => pair.style.getPropertyValue('--cut')") == "51%"


@pytest.mark.slow
def test_another_prompt_takes_the_inversion_that_is_kept(browse: Open, served: Served) -> None:
    page = browse().open("/edit")
    page.get_by_label("Source seed").fill("11")
    before = set(served.app.workspace.inversions.glob("*.safetensors"))
    for colour in ("blue", "green"):
        page.get_by_label("Edit to").fill(f"a big {colour} star moving left over bricks")
        start(page, "Edit")
        page.locator(".pair figcaption", has_text=f"{colour} star").wait_for()
    assert len(set(served.app.workspace.inversions.glob("*.safetensors")) - before) == 1


@pytest.mark.slow
def test_edit_an_uploaded_clip_and_find_it_again_after_a_reload(browse: Open, served: Served, tmp_path: Path) -> None:
    page = browse().open("/edit")
    ramp = torch.linspace(0, 1, 40).expand(12, 3, 48, 40)
    (tmp_path / "clip.mp4").write_bytes(encode_video(ramp))
    page.get_by_label("Upload a clip").check()
    page.locator("input[type=file]").set_input_files(tmp_path / "clip.mp4")
    page.locator(".uploaded video").wait_for()
    page.get_by_text("More settings").click()
    page.get_by_label("Fps").fill("4")
    start(page, "Edit")
    page.get_by_role("alert").wait_for()
    assert "too short" in page.get_by_role("alert").inner_text()
    page.get_by_label("Fps").fill("12")
    page.get_by_label("Frames Frames per video").fill("8")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".check").wait_for()
    record = read_run(served.app.workspace.folder(run_of(page)))
    assert Path(record["config"]["video"]).parent == served.app.workspace.uploads
    page.reload()
    page.locator(".uploaded video").wait_for()
    assert page.get_by_label("Upload a clip").is_checked()


def test_an_uploaded_clip_is_shown_clean_and_a_wrong_one_refused(browse: Open, tmp_path: Path) -> None:
    page = browse().open("/edit")
    clip, wrong = tmp_path / "<i>my clip<i>.mp4", tmp_path / "wrong.mp4"
    clip.write_bytes(encode_video(torch.rand(16, 3, 32, 32)))
    wrong.write_text("<script>alert(1)</script>")
    page.get_by_label("Upload a clip").check()
    page.locator("input[type=file]").set_input_files(wrong)
    page.get_by_role("alert").wait_for()
    said = page.get_by_role("alert").inner_text()
    assert said.startswith("This is no video that can be read; got ")
    assert "/" not in said
    page.locator("input[type=file]").set_input_files(clip)
    page.locator(".uploaded video").wait_for()
    assert page.locator(".uploaded").inner_text() == "16 frames of 32x32, 2.0 s at 8 per second"
    assert page.locator("i").count() == 0
    page.wait_for_timeout(300)
    assert "my clip" not in page.content()
    assert "/gradio_api/file=" not in page.content()


def test_runs_are_listed_compared_and_taken_away(browse: Open, served: Served) -> None:
    for seed in (0, 5):
        asked = MeasureRun("scenes", ("a red star",), GenerationConfig(num_inference_steps=1), seed)
        assert served.app.queue.wait(served.app.start("measure", run_measure, asked)).state == "complete"
    page = browse().open("/runs")
    page.locator("table.runs tbody tr").nth(1).wait_for()
    for place in (0, 1):
        page.locator(".compare input").nth(place).click()
        page.get_by_role("option").nth(place).click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("What differs").wait_for()
    assert "seed" in page.locator(".outcome table").nth(1).inner_text()
    assert page.get_by_text("the largest differences come first").is_visible()
    address = page.get_by_role("link", name="download").first.get_attribute("href")
    with urllib.request.urlopen(served.address + address) as answer:
        archive = zipfile.ZipFile(io.BytesIO(answer.read()))
    assert any(name.endswith("config.json") for name in archive.namelist())


def test_a_long_job_survives_a_reload_others_wait_and_it_can_be_stopped(browse: Open, served: Served) -> None:
    page = browse().open("/")
    start(page, "Measure", 500)
    page.get_by_text(re.compile(r"step \d+ of 500 · about .* left")).wait_for()
    name = run_of(page)
    page.reload()
    page.get_by_text(re.compile(r"step \d+ of 500")).wait_for()

    other = browse().open("/enhance")
    start(other, "Enhance")
    other.get_by_text("1 job before this one").wait_for()
    other.get_by_role("button", name="Stop").click()
    other.get_by_text("Stopped before it began.").wait_for()

    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped. What was finished by then is kept.").wait_for()
    record = read_run(served.app.workspace.folder(name))
    assert (record["status"], record["error"]) == ("partial", "stopped by the user")
    assert served.app.queue.status(name).over


def test_a_wrong_request_is_said_on_the_page_without_a_path(browse: Open) -> None:
    page = browse().open("/")
    page.get_by_label("Prompts").fill("")
    page.get_by_role("button", name="Measure", exact=True).click()
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text() == "There is no prompt; remedy: write what the video shows."
    page = browse().open("/?run=../../etc/passwd")
    page.get_by_role("alert").wait_for()
    assert "This is no name of a run" in page.get_by_role("alert").inner_text()


@pytest.mark.slow
def test_html_in_a_prompt_is_text(browse: Open) -> None:
    page = browse().open("/enhance")
    page.evaluate("() => { window.f = () => { window.hit = true; } }")
    html = "<i>${f()}{{f}}"
    page.get_by_label("Prompts").fill(html)
    start(page, "Enhance")
    page.locator(".pair, [role=alert]").first.wait_for()
    assert page.locator(".pair figcaption").first.inner_text() == f"{html} (seed 0)"
    assert page.locator("i").count() == 0
    assert page.evaluate("() => window.hit") is None
    page.goto(page.url.split("/enhance")[0] + "/runs")
    page.locator("table.runs").wait_for()
    assert html in page.locator("table.runs").inner_text()


SMALL = """() => [...document.querySelectorAll('p, a, label, button, td')].filter(
    e => e.offsetParent && e.innerText.trim() && parseFloat(getComputedStyle(e).fontSize) < 12).length"""
PAGES = ("/", "/perturb", "/enhance", "/edit", "/runs")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_readable_on_a_phone_and_on_a_desk_and_reached_by_keyboard(browse: Open, path: str) -> None:
    page = browse().open(path)
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_timeout(200)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        small = "e => e.offsetParent && e.innerText.trim() && parseFloat(getComputedStyle(e).fontSize) < 12"
        assert (
            page.evaluate(f"() => [...document.querySelectorAll('p, a, label, button, td')].filter({small}).length")
            == 0
        )
    names = page.evaluate("() => [...document.querySelectorAll('.top nav a')].map(a => a.textContent)")
    assert names == ["Measure", "Perturb", "Enhance", "Edit", "Runs"]
    assert page.locator(".top nav a[aria-current=page]").count() == 1
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.innerText || document.activeElement.tagName"))
    assert {"Measure", "Perturb", "Enhance", "Edit", "Runs"} <= set(reached)
    verb = {"/": "Measure", "/runs": "Runs"}.get(path, path[1:].capitalize())
    assert reached.count(verb) >= (1 if path == "/runs" else 2)


IN_SIGHT = """(id) => { const {top, bottom} = document.getElementById(id).getBoundingClientRect();
    return bottom > top && top >= 0 && bottom <= innerHeight; }"""


@pytest.mark.parametrize("name", ["Measure", "Perturb", "Enhance", "Edit"])
def test_what_a_pressed_button_begins_or_why_not_is_in_sight(browse: Open, name: str) -> None:
    page = browse(1280, 900).open("/" if name == "Measure" else f"/{name.lower()}")
    page.get_by_text("More settings").click()
    workflow = name.lower()
    start(page, name, 0)
    page.get_by_role("alert").wait_for()
    page.wait_for_function(IN_SIGHT, arg=f"notice-of-{workflow}")
    assert "“Steps” must be positive" in page.get_by_role("alert").inner_text()
    start(page, name, 900)
    page.locator(".job").wait_for()
    page.wait_for_function(IN_SIGHT, arg=f"progress-of-{workflow}")
    page.get_by_role("button", name="Stop").click()
    page.locator(f"#notice-of-{workflow}", has_text="Stopped").wait_for()


def test_what_is_drawn_late_is_brought_into_sight_all_the_same(browse: Open) -> None:
    page = browse(1280, 900).open("/enhance")
    page.get_by_text("More settings").click()
    page.evaluate("""() => { ieadapt.bringIntoView('enhance'); setTimeout(
        () => document.getElementById('notice-of-enhance').append('drawn late'), 1000); }""")
    page.get_by_text("drawn late").wait_for()
    page.wait_for_function(IN_SIGHT, arg="notice-of-enhance")


COVERED = """() => [...document.querySelectorAll('.form .secondary-wrap')].filter(e => e.offsetParent).filter(wrap => {
    const field = wrap.querySelector('input'), arrow = wrap.querySelector('svg').getBoundingClientRect();
    const end = field.getBoundingClientRect().right - parseFloat(getComputedStyle(field).paddingRight);
    return end > arrow.left || getComputedStyle(field).textOverflow !== 'ellipsis'; }).map(e => e.outerHTML)"""
LABELS = """() => [...document.querySelectorAll('.form .row > .form > .block')].filter(e => e.offsetParent).map(e => {
    const boxes = ['[data-testid=block-info]', '.wrap-inner, .input-container, label > input']
        .map(name => e.querySelector(name)?.getBoundingClientRect());
    return boxes.every(Boolean) && [e.getBoundingClientRect(), ...boxes].map(box => Math.round(box.top))
        .concat([boxes[0].height < 30]); }).filter(Boolean)"""


@pytest.mark.parametrize("path", ["/perturb", "/enhance", "/edit"])
def test_labels_and_fields_of_a_row_are_level_and_no_arrow_is_drawn_over_a_value(browse: Open, path: str) -> None:
    page = browse(1280, 900).open(path)
    page.get_by_text("More settings").click()
    page.wait_for_timeout(300)
    assert page.evaluate(COVERED) == []
    blocks = page.evaluate(LABELS)
    assert len(blocks) > 10
    for top in {block[0] for block in blocks}:
        row = [block for block in blocks if block[0] == top]
        assert len({block[1] for block in row}) == 1
        assert max(block[2] for block in row if block[3]) - min(block[2] for block in row if block[3]) <= 2


def test_every_layer_of_a_heat_map_is_high_enough_to_be_pressed(browse: Open) -> None:
    page = browse(1280, 900).open("/")
    measured(page)
    heights = page.evaluate("() => [...document.querySelectorAll('.layer')].map(e => e.getBoundingClientRect().height)")
    assert len(heights) == 40
    assert min(heights) >= 24


def test_maps_and_comparisons_open_again_from_the_list_of_runs(browse: Open, served: Served) -> None:
    page = browse(1280, 900).open("/")
    name = measured(page)
    page.get_by_role("button", name=f"{MIDDLE}.attn1").click()
    page.locator("img.maps").first.wait_for()
    page = browse(1280, 900).open("/runs")
    page.locator("table.runs tr", has_text="Maps").first.get_by_role("link").first.click()
    page.locator("img.maps").first.wait_for()
    page.locator(".layer").first.wait_for()
    assert f"run={name}" in page.url


@pytest.mark.slow
def test_a_page_with_a_running_job_recovers_when_the_server_is_started_again(chromium: Any, tmp_path: Path) -> None:
    config = WebConfig(("scenes",), Access(port=free_port()), tmp_path / "root")
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(180_000)
    with serving(config) as first:
        page.goto(first.address)
        page.locator(".empty").first.wait_for()
        start(page, "Measure", 900)
        page.get_by_text(re.compile(r"step \d+ of 900")).wait_for()
        name = run_of(page)
    page.get_by_text("Connection to the server was lost").wait_for()
    errors: list[str] = []
    with serving(config):
        page.on("response", lambda answer: errors.append(answer.url) if answer.status >= 400 else None)
        page.get_by_text("Stopped. What was finished by then is kept.").wait_for()
        assert run_of(page) == name
        start(page, "Measure", 1)
        page.locator(".layer").first.wait_for()
    page.close()
    assert errors == []
