"""Many people at once: pages are answered while uploads wait, and uploads stay few, small together, and private."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from ieadapt.errors import UsageError
from ieadapt.runs.videos import encode_video
from ieadapt.web.guard import Access
from ieadapt.web.server import WebConfig
from ieadapt.web.uploads import MEBIBYTE, Limits, Uploads
from tests.web.conftest import Served, free_port, serving

MANY = 45
"""More than the threads that all pages share."""
_BOUNDARY = "----a-boundary"


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Served]:
    with serving(WebConfig(("scenes",), Access(port=free_port()), tmp_path / "root")) as served:
        yield served


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Served]:
    limits = Limits(bytes=MEBIBYTE, number=3, total=2 * MEBIBYTE, sending=1, patience=1)
    with serving(WebConfig(("scenes",), Access(port=free_port()), tmp_path / "root", limits)) as served:
        yield served


def answer(address: str, body: bytes | None = None, kind: str = "application/json") -> tuple[int, str]:
    """Status and text of an answer that comes within ten seconds."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, {"Content-Type": kind}), timeout=10) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def form(content: bytes, name: str = "clip.mp4") -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    return head.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()


def upload(served: Served, content: bytes, name: str = "clip.mp4") -> tuple[int, str]:
    kind = f"multipart/form-data; boundary={_BOUNDARY}"
    return answer(f"{served.address}/gradio_api/upload", form(content, name), kind)


def begun(served: Served, length: str) -> socket.socket:
    """An upload of which only the head is sent."""
    port = int(served.address.rpartition(":")[2])
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{length}\r\n"
    head += f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n\r\n"
    sending = socket.create_connection(("127.0.0.1", port), 10)
    sending.sendall(head.encode())
    return sending


def take(served: Served, path: str) -> list[Any]:
    """What the page Edit makes of an uploaded file."""
    parts = json.loads(answer(f"{served.address}/config")[1])["dependencies"]
    event = next(part for part in parts if any(target[1] == "upload" for target in part["targets"]))
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
    body = {"data": data, "fn_index": event["id"], "session_hash": "a"}
    status, text = answer(f"{served.address}/gradio_api/run/{event['api_name']}", json.dumps(body).encode())
    assert status == 200, text
    return list(json.loads(text)["data"])


def quick(served: Served) -> bool:
    """Whether every page is answered at once."""
    began = time.monotonic()
    assert {answer(f"{served.address}{page}")[0] for page in ("/", "/edit", "/runs", "/look/web.css")} == {200}
    return time.monotonic() - began < 5


def test_pages_are_answered_while_many_clips_wait_to_be_decoded(roomy: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, at_once, most = threading.Event(), 0, 0

    def slow(uploads: Uploads, uploaded: Path, name: str) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        go_on.wait(30)
        at_once -= 1
        uploads.path(name).touch()
        notes = {"frames": 2, "width": 32, "height": 32, "rate": 8.0, "notes": []}
        uploads.path(name).with_suffix(".json").write_text(json.dumps(notes))

    monkeypatch.setattr(Uploads, "_decode", slow)
    paths = [json.loads(upload(roomy, f"clip {number}".encode())[1])[0] for number in range(MANY)]
    with ThreadPoolExecutor(MANY) as people:
        waiting = [people.submit(take, roomy, path) for path in paths]
        while at_once == 0:
            time.sleep(0.05)
        time.sleep(1)  # so that all of them wait
        try:
            assert all(quick(roomy) for _ in range(3))
        finally:
            go_on.set()
        assert all("2 frames of 32x32" in each.result()[2] for each in waiting)
    assert most == 1


def test_pages_are_answered_while_many_browsers_send_slowly(roomy: Served) -> None:
    slow = [begun(roomy, "Content-Length: 100000") for _ in range(MANY)]
    try:
        for each in slow:
            each.sendall(form(b"x" * 1000)[:800])
        assert all(quick(roomy) for _ in range(3))
    finally:
        for each in slow:
            each.close()


def test_uploads_lie_in_a_folder_that_nobody_else_can_read_and_are_gone_once_decoded(
    roomy: Served,
) -> None:
    root = roomy.app.workspace.root
    path = json.loads(upload(roomy, encode_video(torch.rand(4, 3, 32, 32)))[1])[0]
    assert Path(path).is_relative_to(root / "incoming")
    assert [stat.S_IMODE((root / name).stat().st_mode) for name in ("incoming", "uploads")] == [0o700, 0o700]
    assert "4 frames of 32x32" in take(roomy, path)[2]
    assert sum(file.stat().st_size for file in (root / "incoming").rglob("*") if file.is_file()) == 0
    assert "not there any more" in take(roomy, path)[4]


def test_no_more_comes_in_than_the_folder_may_hold(narrow: Served) -> None:
    assert upload(narrow, bytes(MEBIBYTE + 10))[0] == 413
    for length, status in (("Content-Length: 99999999", 413), ("Transfer-Encoding: chunked", 411)):
        with begun(narrow, length) as sending:
            assert sending.recv(1000).startswith(f"HTTP/1.1 {status}".encode())
    assert upload(narrow, b"1" * MEBIBYTE, "first.mp4")[0] == 200
    assert upload(narrow, b"2" * (MEBIBYTE - 1000), "second.mp4")[0] == 200
    assert upload(narrow, b"3" * 5000)[0] == 503
    for file in (narrow.app.workspace.root / "incoming").rglob("*.mp4"):
        file.write_bytes(b"")  # as gradio leaves one for each file that was decoded: it takes nobody's place
    assert [upload(narrow, str(number).encode())[0] for number in range(5)] == [200, 200, 200, 503, 503]


def test_what_nobody_waits_for_any_more_is_swept(narrow: Served) -> None:
    incoming = narrow.app.workspace.root / "incoming"
    paths = [Path(json.loads(upload(narrow, str(number).encode())[1])[0]) for number in range(3)]
    (incoming / "tmp-broken-off").write_bytes(b"half")
    for path in (*paths[:2], paths[0].parent, paths[1].parent, incoming / "tmp-broken-off"):
        os.utime(path, (time.time() - 100,) * 2)
    assert upload(narrow, b"new")[0] == 200
    assert sorted(path.exists() for path in paths) == [False, False, True]
    assert not (incoming / "tmp-broken-off").exists()


def test_a_browser_that_never_ends_its_upload_is_let_go(narrow: Served) -> None:
    with begun(narrow, "Content-Length: 1000") as slow:
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_server_begins_and_ends_with_an_empty_folder_of_uploads(tmp_path: Path) -> None:
    incoming = tmp_path / "root" / "incoming"
    incoming.mkdir(parents=True)
    (incoming / "left").write_text("by a server that was killed")
    before = os.environ.get("GRADIO_TEMP_DIR")
    with serving(WebConfig(("scenes",), Access(port=free_port()), tmp_path / "root")) as served:
        assert list(incoming.iterdir()) == []
        assert upload(served, b"1")[0] == 200
    assert not incoming.exists()
    assert os.environ.get("GRADIO_TEMP_DIR") == before


@pytest.mark.parametrize("limits", [Limits(number=1), Limits(total=1000)])
def test_no_more_clips_are_kept_than_there_is_room_for(tmp_path: Path, limits: Limits) -> None:
    uploads = Uploads(tmp_path, limits)
    for name, shade in (("first", 0.2), ("second", 0.8)):
        (tmp_path / name).write_bytes(encode_video(torch.full((4, 3, 32, 32), shade)))
    taken = uploads.take(tmp_path / "first")
    with pytest.raises(UsageError, match="there is no room for another clip; expected fewer than"):
        uploads.take(tmp_path / "second")
    assert uploads.take(tmp_path / "first") == taken
