"""The server: gradio's pages beside the files of runs, on this machine alone unless told otherwise."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import fastapi
import gradio as gr
import uvicorn
from fastapi.staticfiles import StaticFiles

from ieadapt.errors import UsageError
from ieadapt.models import known_models
from ieadapt.models.location import model_folder, pipeline_index
from ieadapt.web.app import App
from ieadapt.web.files import add_files
from ieadapt.web.guard import Access, Guard
from ieadapt.web.pages import edit, enhance, measure, perturb, runs
from ieadapt.web.uploads import Inbox, Limits, Uploads
from ieadapt.web.workspace import Workspace

STATIC = Path(__file__).with_name("static")
PATIENCE = 3
"""Seconds that open pages have to let go of their connections when the server ends."""
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
_MONOSPACE = ("ui-monospace", "DejaVu Sans Mono", "monospace")
_HEAD = '<link rel="stylesheet" href="/look/web.css"><script defer src="/look/web.js"></script>'


@dataclass(frozen=True)
class WebConfig:
    """How the web app is served.

    Attributes:
        models: names, folders or hub ids that its pages offer; by default the bundled models.
        access: where it listens, and who may use it.
        root: folder of its runs, the only one that pages can read.
        limits: of uploaded clips.
    """

    models: tuple[str, ...] = ()
    access: Access = field(default_factory=Access)
    root: Path = Path("runs/web")
    limits: Limits = field(default_factory=Limits)


def serve(config: WebConfig, say: Callable[[str], None]) -> None:
    """Serve the app until it is stopped.

    Args:
        config: what, where.
        say: told the address once the app listens.

    Raises:
        UsageError: a model that cannot be loaded, a folder that cannot be written, or an address that is taken.
    """
    with _listening(config.access) as listening:
        application = application_of(config)
        say(f"web app: {' or '.join(config.access.urls)} (Ctrl-C ends it)")
        settings = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=PATIENCE)
        uvicorn.Server(settings).run(sockets=[listening])


def _listening(access: Access) -> socket.socket:
    """The socket of the address."""
    family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
    try:
        return socket.create_server((access.host, access.port), family=family)
    except OSError as error:
        raise UsageError(
            "the web app cannot listen there",
            got=error.strerror or error,
            where=f"{access.host}:{access.port}",
            remedy="name another --port or --host",
        ) from error


def application_of(config: WebConfig) -> fastapi.FastAPI:
    """The whole app, ready to be served; its `state.app` is the state that the pages share.

    Raises:
        UsageError: as `serve` does.
    """
    models = config.models or _bundled()
    for model in models:
        pipeline_index(model_folder(model))
    workspace = Workspace(config.root)
    workspace.prepare()
    app = App(workspace, models)

    @contextlib.asynccontextmanager
    async def lifetime(server: fastapi.FastAPI) -> AsyncIterator[None]:
        with _gradio_environment(workspace.incoming):
            yield
        app.close()
        workspace.empty_incoming()

    server = fastapi.FastAPI(openapi_url=None, lifespan=lifetime)
    server.state.app = app
    server.mount("/look", StaticFiles(directory=STATIC))
    uploads = Uploads(workspace.uploads, config.limits)
    add_files(server, app, uploads)
    with _gradio_environment(workspace.incoming):
        gr.mount_gradio_app(
            server,
            pages(app, uploads),
            path="/",
            footer_links=[],
            show_error=False,
            ssr_mode=False,
            enable_monitoring=False,
            max_file_size=config.limits.bytes,
            theme=gr.themes.Base(font=_FONTS, font_mono=_MONOSPACE),
            head=_HEAD,
        )
    server.add_middleware(Inbox, folder=workspace.incoming, limits=config.limits)
    server.add_middleware(Guard, access=config.access)
    return server


def pages(app: App, uploads: Uploads) -> gr.Blocks:
    """Every page of the app."""
    with gr.Blocks(title="ieadapt", analytics_enabled=False) as blocks:
        gr.Navbar(visible=False)
        measure.build(app, blocks)
    for name, page in (("perturb", perturb), ("enhance", enhance), ("runs", runs)):
        with blocks.route(name.capitalize(), name, show_in_navbar=False) as route:
            page.build(app, route)
    with blocks.route("Edit", "edit", show_in_navbar=False) as route:
        edit.build(app, uploads, route)
    return blocks


def _bundled() -> tuple[str, ...]:
    """Bundled models whose weights are in this installation."""
    return tuple(name for name, model in known_models().items() if model.available)


@contextlib.contextmanager
def _gradio_environment(incoming: Path) -> Iterator[None]:
    """No analytics, no look for newer versions, and uploads in a folder that no other user of the machine can see.

    gradio reads the folder from the environment only, when pages are made and at each upload.
    """
    settings = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(incoming.resolve())}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
