"""`ieadapt web`: it listens on this machine, ends on Ctrl-C and marks what it was doing; and what it refuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import Program


def test_refusals_are_one_line(program: Program, tmp_path: Path) -> None:
    assert "unknown model 'scened'" in program("web", "--model", "scened", "--root", tmp_path).refused()
    assert "this is no port" in program("web", "--port", "70000", "--root", tmp_path).refused()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "the web app cannot listen there; got Address already in use" in program("web", "--port", port).refused()
    (tmp_path / "file").write_text("")
    said = program("web", "--root", tmp_path / "file" / "root").refused()
    assert "the folder of the web app cannot be written" in said


def test_without_gradio_it_says_what_to_install(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("ieadapt.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gradio", None)
    said = program("web").refused()
    assert "the web app needs gradio" in said
    assert 'pip install ".[web]"' in said


@pytest.mark.slow
def test_it_is_served_on_this_machine_until_it_is_stopped(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "ieadapt", "web", "--port", str(port), "--root", str(tmp_path / "root")]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=dict(os.environ), cwd=tmp_path)
    try:
        assert _text(f"http://127.0.0.1:{port}/look/web.css").startswith("/*")
        assert "gradio_config" in _text(f"http://127.0.0.1:{port}/")
    finally:
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=30)
    assert said.splitlines()[0] == f"web app: http://127.0.0.1:{port} (Ctrl-C ends it)"
    assert "Traceback" not in said
    assert server.returncode in (0, 130)


def _text(address: str) -> str:
    for _ in range(300):
        try:
            with urllib.request.urlopen(address) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"nothing answers at {address}")
