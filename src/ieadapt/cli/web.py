"""`ieadapt web`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ieadapt.errors import UsageError

Models = Annotated[
    list[str] | None, typer.Option("--model", help="a model that the pages offer; by default the bundled ones")
]
Host = Annotated[str, typer.Option("--host", help="address to listen on; the default is seen from this machine alone")]
Port = Annotated[int, typer.Option("--port", help="port to listen on")]
Names = Annotated[
    list[str] | None,
    typer.Option("--allow-host", help="a further name under which browsers reach the app", metavar="NAME"),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="IEADAPT_WEB_TOKEN",
        help="what a browser must show once; by default a new one, or none on an address of this machine alone",
    ),
]
Root = Annotated[
    Path, typer.Option("--root", help="folder of the runs, the only one that pages can read", metavar="DIR")
]


def command(
    *,
    model: Models = None,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    allow_host: Names = None,
    token: Token = None,
    root: Root = Path("runs/web"),
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
        raise UsageError(
            "the web app needs gradio", got="it is not installed", remedy='pip install "ieadapt[web]"'
        ) from error
    access = Access(host, port, tuple(allow_host or ()), token)
    serve(WebConfig(tuple(model or ()), access, root), lambda words: print(words, file=sys.stderr, flush=True))
