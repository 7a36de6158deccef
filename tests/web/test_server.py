"""What the server gives out, and to whom: files that runs list, nothing by a path, nothing to a foreign page."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from ieadapt.errors import UsageError
from ieadapt.runs.folder import open_run
from ieadapt.web.guard import Access
from ieadapt.web.server import WebConfig, application_of
from ieadapt.web.uploads import Limits

PATHS = (
    "/files/measure-1/../../secret.txt",
    "/files/measure-1/..%2f..%2fsecret.txt",
    "/files/measure-1/%2e%2e/%2e%2e/secret.txt",
    "/files/..%2f/secret.txt",
    "/files/measure-1//etc/passwd",
    "/files/measure-1/unlisted.txt",
    "/files/measure-1/a%00b",
    "/files/measure-2/config.json",
    "/zip/..%2fmeasure-1.zip",
    "/zip/measure-2.zip",
    "/clip/..%2f..%2fsecret.mp4",
    "/clip/0123456789abcdef.mp4",
    "/look/../server.py",
    "/look/%2e%2e/server.py",
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file/etc/passwd",
    "/gradio_api/file=http://127.0.0.1:1/x",
    "/gradio_api/proxy=http://127.0.0.1:1/x",
    "/gradio_api/openapi.json",
    "/gradio_api/stream/x/0/0/playlist.m3u8",
    "/file=/etc/passwd",
    "/file/etc/passwd",
    "/proxy=http://127.0.0.1:1/x",
    "/monitoring",
    "/docs",
    "/openapi.json",
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The app without a network, with one run in its folder and secrets beside it."""
    outside = tmp_path_factory.mktemp("outside")
    root = outside / "root"
    (outside / "secret.txt").write_text("top secret")
    (outside / "secret.mp4").write_text("top secret")
    command = f"ieadapt --out {root}/measure-1"
    with open_run(root / "measure-1", "measure", {"prompts": ["a"]}, command=command) as run:
        run.write("report.html", f"<p>weights: {root.resolve()} and {Path.home()}/models</p>")
        run.write("clip.mp4", b"12345")
        (run.path / "unlisted.txt").write_text("top secret")
    application = application_of(WebConfig(("scenes",), root=root))
    with TestClient(application, base_url="http://127.0.0.1:7860") as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
def test_a_path_gives_nothing(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 405), answer.text[:200]
    assert "secret" not in answer.text
    assert "root:" not in answer.text


def test_a_run_is_served_without_the_folders_of_this_machine(client: TestClient) -> None:
    report = client.get("/files/measure-1/report.html")
    assert report.text == "<p>weights: . and models</p>"
    assert report.headers["content-security-policy"].startswith("default-src 'none'")
    assert "sandbox" in report.headers["content-security-policy"]
    assert client.get("/files/measure-1/config.json").json()["command"] == "ieadapt --out measure-1"
    part = client.get("/files/measure-1/clip.mp4", headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.content, part.headers["content-type"]) == (206, b"234", "video/mp4")


def test_a_run_is_taken_away_as_one_file(client: TestClient) -> None:
    archive = zipfile.ZipFile(io.BytesIO(client.get("/zip/measure-1.zip").content))
    assert archive.namelist() == ["measure-1/config.json", "measure-1/report.html", "measure-1/clip.mp4"]
    assert archive.read("measure-1/clip.mp4") == b"12345"
    assert str(client.app.state.app.workspace.root) not in archive.read("measure-1/config.json").decode()


@pytest.mark.parametrize("path", ["/", "/perturb", "/enhance", "/edit", "/runs"])
def test_every_page_is_there_and_loads_from_here_alone(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'self' 'unsafe-inline' 'unsafe-eval'")
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert str(Path(__file__).parents[2]) not in answer.text
    assert "fonts.googleapis" not in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:7860"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:7860"}, 200),
        ({"Host": "localhost:7860", "Origin": "http://localhost:7860"}, 200),
    ],
)
def test_foreign_names_and_foreign_pages_are_refused(client: TestClient, headers: dict, status: int) -> None:
    assert client.get("/runs", headers=headers).status_code == status


def test_an_upload_is_limited_in_size(tmp_path: Path) -> None:
    config = WebConfig(("scenes",), root=tmp_path / "root", limits=Limits(bytes=1000))
    with TestClient(application_of(config), base_url="http://127.0.0.1:7860") as client:
        answer = client.post("/gradio_api/upload", files={"files": ("a.mp4", bytes(5000), "video/mp4")})
        assert answer.status_code == 413


def test_only_models_that_the_app_was_started_with_are_loaded(client: TestClient) -> None:
    config = json.loads(client.get("/config").text)
    offered = [part["props"]["choices"] for part in config["components"] if part["props"].get("label") == "Model"]
    assert offered == [[["scenes", "scenes"]]] * 4


def test_a_model_that_cannot_be_loaded_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown model 'scened'"):
        application_of(WebConfig(("scened",), root=tmp_path))
    with pytest.raises(UsageError, match=r"this folder holds no diffusers pipeline: model_index\.json is missing"):
        application_of(WebConfig(("scenes", str(tmp_path)), root=tmp_path))
    with pytest.raises(UsageError, match=r"this is no port; expected 1\.\.65535; got 0"):
        Access(port=0)


def test_whatever_a_record_lists_the_zip_holds_what_is_in_the_folder(client: TestClient) -> None:
    root = client.app.state.app.workspace.root
    with open_run(root / "odd-1", "measure", {"prompts": ["a"]}) as run:
        for name in ("latin.txt", "broken.html", "old.png"):
            run.write(name, f"caf\xe9 in {root.resolve()}/odd-1".encode("latin-1"))
        os.utime(run.path / "old.png", (0, 0))  # ZIP knows no time before 1980
        (run.path / "out.txt").symlink_to(root.parent / "secret.txt")
        (run.path / "folder").symlink_to(root.parent)
        (run.path / "loop.txt").symlink_to("loop.txt")
        (run.path / "gone.txt").symlink_to("nothing")
        (run.path / "inside.txt").symlink_to("latin.txt")
        (run.path / "sub").mkdir()
        os.mkfifo(run.path / "pipe.txt")
        files = run.record["files"]
        for path in ("out.txt", "folder/secret.txt", "loop.txt", "sub/../latin.txt", "a\0b", "/etc/passwd"):
            run.note(files=[*files, path])
            assert client.get("/zip/odd-1.zip").status_code == 404, path
            assert client.get("/files/odd-1/latin.txt").status_code == 404, path
        listed = ["gone.txt", "inside.txt", "sub", "pipe.txt", "never.txt"]
        run.note(files=[*files, *listed, "latin.txt", "x" * 5000])
    answer = client.get("/zip/odd-1.zip")
    assert answer.status_code == 200
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    names = ["config.json", "latin.txt", "broken.html", "old.png", "inside.txt"]
    assert archive.namelist() == [f"odd-1/{name}" for name in names]
    assert archive.read("odd-1/latin.txt") == b"caf\xe9 in odd-1"
    for path in (*listed, *names):
        assert client.get(f"/files/odd-1/{path}").status_code == (200 if path in names else 404), path
    assert client.get("/files/odd-1/broken.html").content == b"caf\xe9 in odd-1"
