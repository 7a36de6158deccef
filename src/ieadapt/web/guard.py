"""What stands before every request: only known hosts, only pages of this server as callers, only the routes in use."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104
_ROUTES = re.compile(
    r"/(?:perturb|enhance|edit|runs)?/?"  # the pages
    r"|/(?:look|files|zip|clip)/.+"  # what they show
    r"|/(?:static|assets)/.+|/theme\.css|/favicon\.ico|/config/?"  # gradio's own scripts and styles
    r"|/gradio_api/(?:run/\w+|upload|upload_progress|heartbeat/\w+|startup-events|reset)/?"
)
_HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'self'; base-uri 'self'; form-action 'self'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}


class Guard:
    """An ASGI layer that refuses what no page of this app asks for, and tells browsers to load from here alone.

    A request must name this server as its host (another name that leads here could read answers: DNS rebinding), and
    come from a page of this server if it says where from. Only those routes are open that the pages use: above all none
    of gradio's own that gives out files, fetches addresses or lists what can be called.

    Args:
        app: what is guarded.
        host: address that the server listens on; one that means all of the machine's addresses allows every name.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._hosts = None if host in _EVERYWHERE else LOCAL | {host}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with a refusal."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = self._refusal(scope)
        if status is not None:
            await PlainTextResponse("refused", status)(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> int | None:
        """The status of a refusal, or None."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and (urlsplit(f"//{host}").hostname or "") not in self._hosts:
            return 421
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403
        return None if _ROUTES.fullmatch(scope["path"]) else 404
