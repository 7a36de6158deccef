"""What stands before every request: known hosts, pages of this server as callers, the token, the routes in use."""

from __future__ import annotations

import functools
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ieadapt.errors import UsageError

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
SHORTEST_TOKEN = 16
_ROUTES = re.compile(
    r"/(?:(?:perturb|enhance|edit|runs)/?)?"  # the pages
    r"|/(?:look|files|zip|clip)/.+"  # what they show
    r"|/(?:static|assets)/.+|/theme\.css|/favicon\.ico|/config/?"  # gradio's own scripts and styles
    # app_id: a page that has lost its server asks for it until there is one again, then loads itself anew
    r"|/gradio_api/(?:run/\w+|upload|upload_progress|heartbeat/\w+|startup-events|reset|app_id)/?"
)
_HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'self'; base-uri 'self'; form-action 'self'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}
_PRIVATE = "This app is private: open the address that `ieadapt web` has printed, which ends in ?token=..."


@dataclass(frozen=True)
class Access:
    """Where the app listens, and who may use it.

    Attributes:
        host: address that it listens on.
        port: of that address.
        names: further names under which browsers reach it.
        fixed_token: the token; None makes a new one, except where only this machine can reach the address.

    Raises:
        UsageError: no such port, or a token that can be guessed.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    names: tuple[str, ...] = ()
    fixed_token: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise UsageError("this is no port", expected="1..65535", got=self.port, where="--port")
        if self.fixed_token is not None and not re.fullmatch(
            rf"[\w.~-]{{{SHORTEST_TOKEN},}}", self.fixed_token, re.ASCII
        ):
            expected = f"{SHORTEST_TOKEN} or more letters, digits, and . _ ~ -"
            raise UsageError("this token will not do", expected=expected, where="--token")

    @functools.cached_property
    def token(self) -> str | None:
        """What a browser must show once; None where none is needed."""
        address = _address(self.host)
        alone = self.host in LOCAL or (address is not None and address.is_loopback)
        return self.fixed_token or (None if alone else secrets.token_urlsafe(24))

    @property
    def everywhere(self) -> bool:
        """Whether the address stands for all addresses of this machine."""
        address = _address(self.host)
        return not self.host or (address is not None and address.is_unspecified)

    def knows(self, name: str) -> bool:
        """Whether a browser may call this server by a name.

        Another name that leads here belongs to a page that wants to read answers (DNS rebinding). An address of numbers
        is none of that kind, since nobody else can give it out.

        Example:
            >>> Access().knows("localhost"), Access().knows("evil.example"), Access("0.0.0.0").knows("192.168.0.7")
            (True, False, True)
        """
        known = {*LOCAL, *self.names, self.host, *([socket.gethostname()] if self.everywhere else [])} - {""}
        return name in {each.lower() for each in known} or (self.everywhere and _address(name) is not None)

    @property
    def urls(self) -> list[str]:
        """Addresses to open in a browser; further names may belong to a server in front, with a port of its own."""
        hosts = [socket.gethostname(), "127.0.0.1"] if self.everywhere else [self.host]
        ending = f"/?token={self.token}" if self.token else ""
        return [f"http://{f'[{host}]' if ':' in host else host}:{self.port}{ending}" for host in hosts]


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class Guard:
    """An ASGI layer that refuses what no page of this app asks for, and tells browsers to load from here alone.

    A request must name this server as its host, come from a page of this server if it says where from, and show the
    token where there is one: first in the address, then in a cookie. Only those routes are open that the pages use:
    above all none of gradio's own that gives out files, fetches addresses or lists what can be called.

    Args:
        app: what is guarded.
        access: where the app listens, and who may use it.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access
        self._cookie = f"ieadapt-{access.port}"  # a browser sends the cookies of one port to all ports of a host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it in place of the app."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no page opens a websocket
            await send({"type": "websocket.close"})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await (self._answer(HTTPConnection(scope)) or self._app)(scope, receive, with_headers)

    def _answer(self, request: HTTPConnection) -> Response | None:
        """The answer to a request that does not reach the app."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if not self._access.knows(_name(host)):
            return PlainTextResponse("refused", 421)
        if origin is not None and origin.partition("://")[2] != host:
            return PlainTextResponse("refused", 403)
        if not _ROUTES.fullmatch(request.scope["path"]):
            return PlainTextResponse("refused", 404)
        if self._access.token is None:
            return None
        if self._is_token(request.query_params.get("token")):
            return self._with_cookie(request)
        return None if self._is_token(request.cookies.get(self._cookie)) else PlainTextResponse(_PRIVATE, 401)

    def _is_token(self, shown: str | None) -> bool:
        # in constant time: how long a comparison takes would tell how much of a guess was right
        return secrets.compare_digest((shown or "").encode(), (self._access.token or "").encode())

    def _with_cookie(self, request: HTTPConnection) -> Response:
        """The way to the same page without the token, which is neither to stay in the address nor in bookmarks."""
        url = request.url.remove_query_params("token")
        answer = RedirectResponse(f"{url.path}?{url.query}" if url.query else url.path, 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(self._cookie, self._access.token or "", httponly=True, samesite="lax", secure=secure)
        return answer


def _name(host: str) -> str:
    """The name in a Host header; empty where there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # half an IPv6 address
        return ""
