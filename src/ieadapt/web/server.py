"""The server: gradio's pages beside the files of runs, on this machine alone unless told otherwise."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import fastapi
import gradio as gr
import uvicorn
from fastapi.responses import FileResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.background import BackgroundTask

from ieadapt.errors import UsageError, raised_as
from ieadapt.models import known_models
from ieadapt.models.location import model_folder, pipeline_index
from ieadapt.web import edit, measure, runs, videos
from ieadapt.web.app import App
from ieadapt.web.guard import Access, Guard
from ieadapt.web.page import WorkflowPage
from ieadapt.web.uploads import Inbox, Limits, Uploads
from ieadapt.web.workspace import Workspace

STATIC = Path(__file__).with_name("static")
PATIENCE = 3
"""Seconds that open pages have to let go of their connections when the server ends."""
TEXTS = {".html": "text/html", ".json": "application/json", ".md": "text/markdown", ".txt": "text/plain"}
"""Kinds of files that are shown without the folders of this machine."""
MEDIA = {".mp4": "video/mp4", ".png": "image/png"}
_REPORT = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; sandbox"
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


def serve(config: WebConfig) -> None:
    """Serve the app until it is stopped; once it listens, its address is printed on standard error.

    Raises:
        UsageError: a model that cannot be loaded, a folder that cannot be written, or an address that is taken.
    """
    with _listening(config.access) as listening:
        application = application_of(config)
        print(f"web app: {' or '.join(config.access.urls)} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        settings = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=PATIENCE)
        uvicorn.Server(settings).run(sockets=[listening])


def _listening(access: Access) -> socket.socket:
    """The socket of the address."""
    family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
    where, remedy = f"{access.host}:{access.port}", "name another --port or --host"
    with raised_as(UsageError, "the web app cannot listen there", OSError, where=where, remedy=remedy):
        return socket.create_server((access.host, access.port), family=family)


def application_of(config: WebConfig) -> fastapi.FastAPI:
    """The whole app, ready to be served; its `state.app` is the state that the pages share.

    Raises:
        UsageError: as `serve` does.
    """
    models = config.models or tuple(name for name, model in known_models().items() if model.available)
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
    serve_files(server, app, uploads)
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


def serve_files(server: fastapi.FastAPI, app: App, uploads: Uploads) -> None:
    """Let a server give out files that runs list, whole runs as ZIP files, and clean clips; anything else is a 404."""

    @contextlib.contextmanager
    def or_not_listed() -> Iterator[None]:
        try:
            yield
        except ValueError:  # a UsageError, or a NUL in a name
            raise fastapi.HTTPException(404) from None

    @server.get("/files/{run}/{path:path}")
    def file(run: str, path: str) -> Response:
        with or_not_listed():
            listed = app.workspace.file(run, path)
        if listed.suffix in TEXTS:
            headers = {"Content-Security-Policy": _REPORT}
            return Response(_text_of(app, listed), media_type=TEXTS[listed.suffix], headers=headers)
        return FileResponse(listed, media_type=MEDIA.get(listed.suffix, "application/octet-stream"))

    @server.get("/zip/{run}.zip")
    def folder(run: str) -> Response:
        with or_not_listed():
            archive = _zipped(app, run)
        headers = {"Content-Disposition": f'attachment; filename="{run}.zip"'}
        chunks = iter(lambda: archive.read(2**20), b"")
        return StreamingResponse(chunks, 200, headers, "application/zip", BackgroundTask(archive.close))

    @server.get("/clip/{name}.mp4")
    def clip(name: str) -> Response:
        with or_not_listed():
            return FileResponse(uploads.path(uploads.find(name).name), media_type=MEDIA[".mp4"])


def _zipped(app: App, run: str) -> IO[bytes]:
    """The files of a run as one ZIP file."""
    names = app.workspace.files(run)
    file = tempfile.TemporaryFile(dir=app.workspace.incoming)  # noqa: SIM115
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for name in names:
            path = app.workspace.folder(run) / name
            if path.suffix in TEXTS:
                archive.writestr(f"{run}/{name}", _text_of(app, path))
            else:
                archive.write(path, f"{run}/{name}")
    file.seek(0)
    return file


def _text_of(app: App, file: Path) -> bytes:
    """A text without the folders of this machine; bytes that are no UTF-8 stay as they are."""
    text = file.read_bytes().decode(errors="surrogateescape")
    return app.hide_folders(text).encode(errors="surrogateescape")


def pages(app: App, uploads: Uploads) -> gr.Blocks:
    """Every page of the app."""
    with gr.Blocks(title="ieadapt", analytics_enabled=False) as blocks:
        gr.Navbar(visible=False)
        measure.build(app, blocks)
    builders: dict[str, Callable[[App, gr.Blocks], object]] = {
        "perturb": videos.build_perturb,
        "enhance": functools.partial(WorkflowPage, workflow=videos.ENHANCE),
        "edit": functools.partial(edit.build, uploads=uploads),
        "runs": runs.build,
    }
    for path, build in builders.items():
        with blocks.route(path.capitalize(), path, show_in_navbar=False) as route:
            build(app, route)
    return blocks


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
