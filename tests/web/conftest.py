"""The web app in this process, over HTTP, and in a real browser."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from ieadapt.web.app import App
from ieadapt.web.guard import Access
from ieadapt.web.server import WebConfig, application_of

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
)


@dataclass(frozen=True)
class Served:
    """A running web app.

    Attributes:
        address: of its first page, without a slash at the end.
        app: the state behind it.
    """

    address: str
    app: App


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(config: WebConfig) -> Iterator[Served]:
    """An app over HTTP, until the block is left."""
    application = application_of(config)
    port = config.access.port
    server = uvicorn.Server(uvicorn.Config(application, port=port, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.05)
    yield Served(f"http://127.0.0.1:{port}", application.state.app)
    server.should_exit = True
    thread.join(15)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The app with the bundled model, over HTTP."""
    with serving(WebConfig(("scenes",), Access(port=free_port()), tmp_path_factory.mktemp("web"))) as served:
        yield served


@dataclass
class Watched:
    """A page in a browser, and what went wrong in it.

    Attributes:
        page: of Playwright.
        address: of the app.
        errors: of the console, of scripts, and answers of status 400 or more.
        foreign: addresses outside the app that were asked for.
    """

    page: Any
    address: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note from now on what goes wrong."""
        page = self.page
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("response", lambda answer: self.errors.append(answer.url) if answer.status >= 400 else None)
        page.on("request", lambda request: self._asked(request.url))

    def _asked(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:")):
            self.foreign.append(url)

    def open(self, path: str) -> Any:
        """Go to a page of the app; returns Playwright's page."""
        self.page.goto(f"{self.address}{path}")
        self.page.locator("h1").wait_for()
        self.page.wait_for_function("() => document.querySelector('.empty, .outcome, .job')")
        return self.page


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A real browser; skipped without one, unless `IEADAPT_BROWSER=required` makes that a failure."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        reason = "no Chromium here: `make chromium` installs Debian's"
        pytest.fail(reason) if os.environ.get("IEADAPT_BROWSER") == "required" else pytest.skip(reason)
    sync = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield browser
        browser.close()


Open = Callable[..., Watched]


@pytest.fixture
def browse(chromium: Any, served: Served) -> Iterator[Open]:
    """Opens watched pages; afterwards nothing may have gone wrong in them, and nothing have left this machine."""
    opened: list[Watched] = []

    def new(width: int = 1440, height: int = 900) -> Watched:
        page = chromium.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(180_000)
        watched = Watched(page, served.address)
        watched.watch()
        opened.append(watched)
        return watched

    yield new
    shown = [watched.page.content() for watched in opened]
    for watched in opened:
        watched.page.close()
    assert not [html for html in shown if str(served.app.workspace.root) in html or str(Path.cwd()) in html]
    assert [error for watched in opened for error in watched.errors] == []
    assert [url for watched in opened for url in watched.foreign] == []
