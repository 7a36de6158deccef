"""`ieadapt web`; the only module that imports the app, which needs an extra."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ieadapt.errors import UsageError
from ieadapt.runs.notes import libraries_heard

_PROOF = "what a browser must show once; by default a new one, or none on an address of this machine alone"


def web(
    *,
    model: Annotated[
        list[str] | None, typer.Option(help="a model that the pages offer; by default the bundled ones")
    ] = None,
    host: Annotated[
        str, typer.Option(help="address to listen on; the default is seen from this machine alone")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on")] = 7860,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="a further name under which browsers reach the app", metavar="NAME")
    ] = None,
    token: Annotated[str | None, typer.Option(envvar="IEADAPT_WEB_TOKEN", help=_PROOF)] = None,
    root: Annotated[
        Path, typer.Option(help="folder of the runs, the only one that pages can read", metavar="DIR")
    ] = Path("runs/web"),
) -> None:
    """Nothing is loaded from a network. The runs are those of the other commands, in ordinary run folders.

    Whoever can open the address that is printed can run jobs on this machine. Ctrl-C ends it.

    Example: `ieadapt web --port 7861`
    """
    try:
        from ieadapt.web.guard import Access
        from ieadapt.web.server import WebConfig, serve
    except ModuleNotFoundError as error:
        if error.name not in ("gradio", "fastapi", "starlette", "uvicorn"):
            raise
        remedy = 'in a clone of ieadapt: pip install ".[web]"'
        raise UsageError("the web app needs gradio", got="it is not installed", remedy=remedy) from error
    with libraries_heard():
        serve(WebConfig(tuple(model or ()), Access(host, port, tuple(allow_host or ()), token), root))
