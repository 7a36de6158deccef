"""Files of runs over HTTP: those that a run's record lists, of the app's own folder, and nothing else."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import fastapi
from fastapi.responses import FileResponse, Response, StreamingResponse

from ieadapt.errors import UsageError
from ieadapt.web.app import App
from ieadapt.web.uploads import Uploads

TEXTS = {".html": "text/html", ".json": "application/json", ".md": "text/markdown", ".txt": "text/plain"}
"""Kinds of files that are shown without the folders of this machine."""
MEDIA = {".mp4": "video/mp4", ".png": "image/png"}
_REPORT = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; sandbox"
_CHUNK = 2**20


def add_files(server: fastapi.FastAPI, app: App, uploads: Uploads) -> None:
    """Let a server give out the files of runs, whole runs as ZIP files, and the clean clips of uploads."""

    @server.get("/files/{run}/{path:path}")
    def file(run: str, path: str) -> Response:
        return file_response(app, run, path)

    @server.get("/zip/{run}.zip")
    def folder(run: str) -> Response:
        return folder_response(app, run)

    @server.get("/clip/{name}.mp4")
    def clip(name: str) -> Response:
        try:
            return FileResponse(uploads.path(uploads.find(name).name), media_type=MEDIA[".mp4"])
        except UsageError:
            raise fastapi.HTTPException(404) from None


def file_response(app: App, run: str, path: str) -> Response:
    """One file of a run; 404 for everything that is none."""
    try:
        found = app.workspace.file(run, path)
    except (UsageError, ValueError):  # a NUL in a name
        raise fastapi.HTTPException(404) from None
    if found.suffix in TEXTS:
        return Response(
            _text_of(found, app), media_type=TEXTS[found.suffix], headers={"Content-Security-Policy": _REPORT}
        )
    return FileResponse(found, media_type=MEDIA.get(found.suffix, "application/octet-stream"))


def folder_response(app: App, run: str) -> Response:
    """The files of a run as one ZIP file."""
    try:
        names = app.workspace.files(run)
    except (UsageError, ValueError):
        raise fastapi.HTTPException(404) from None
    file = tempfile.TemporaryFile(dir=app.workspace.incoming)  # noqa: SIM115
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for name in names:
            _add(archive, f"{run}/{name}", app.workspace.folder(run) / name, app)
    file.seek(0)
    headers = {"Content-Disposition": f'attachment; filename="{run}.zip"'}
    return StreamingResponse(_chunks(file), media_type="application/zip", headers=headers)


def _add(archive: zipfile.ZipFile, name: str, file: Path, app: App) -> None:
    if file.suffix in TEXTS:
        archive.writestr(name, _text_of(file, app))
    else:
        archive.write(file, name)


def _text_of(file: Path, app: App) -> bytes:
    """A text without the folders of this machine; bytes that are no UTF-8 stay as they are."""
    text = file.read_bytes().decode(errors="surrogateescape")
    return app.spoken(text).encode(errors="surrogateescape")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk
