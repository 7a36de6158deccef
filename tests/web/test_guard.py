"""Who may use the app: whoever shows the token, where others than this machine reach it; by no name but its own."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ieadapt.errors import UsageError
from ieadapt.web.guard import Access, Guard
from ieadapt.web.server import WebConfig, application_of

TOKEN = "a-token-of-the-test"
ADDRESSES = (
    "/",
    "/runs",
    "/config",
    "/look/web.css",
    "/files/a/config.json",
    "/zip/a.zip",
    "/clip/0123456789abcdef.mp4",
)
ADDRESSES += (
    "/gradio_api/app_id",
    "/gradio_api/heartbeat/x",
    "/gradio_api/run/load",
    "/static/img/logo.svg",
    "/theme.css",
)


def guarded(access: Access, host: str = "127.0.0.1:7860") -> TestClient:
    """An app that answers everything, behind the guard."""

    def anything(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"in: {request.url.query}")

    async def talk(socket: WebSocket) -> None:
        await socket.accept()

    routes = [WebSocketRoute("/runs", talk), Route("/{path:path}", anything, methods=["GET", "POST"])]
    return TestClient(Guard(Starlette(routes=routes), access), base_url=f"http://{host}", follow_redirects=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.0.7", "example.org", "0"])
def test_beyond_this_machine_there_is_always_a_token_and_never_the_same(host: str) -> None:
    tokens = {Access(host).token for _ in range(20)}
    assert len(tokens) == 20
    assert all(token and len(token) >= 32 for token in tokens)
    assert Access(host, fixed_token=TOKEN).token == TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_on_this_machine_alone_there_is_one_if_it_is_given(host: str) -> None:
    assert Access(host).token is None
    assert Access(host, fixed_token=TOKEN).token == TOKEN


@pytest.mark.parametrize("given", ["", "short", "with a space in it", "ünïcödé-tokens-here", "line\nbreak-in-a-token"])
def test_a_token_that_can_be_guessed_or_breaks_an_address_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="this token will not do; expected 16 or more letters"):
        Access(fixed_token=given)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("shown", ["", "wrong", TOKEN[:-1], TOKEN + "x", "é"])
def test_without_the_token_nothing_is_answered(address: str, shown: str) -> None:
    client = guarded(Access("0.0.0.0", fixed_token=TOKEN))
    cookie = {"Cookie": f"ieadapt-7860={shown}".encode()}
    for answer in (client.get(address), client.post(address), client.get(address, headers=cookie)):
        assert answer.status_code == 401
        assert answer.text.startswith("This app is private: open the address that `ieadapt web` has printed")
    assert client.get(address, params={"token": shown}).status_code == 401


def test_the_token_in_the_address_becomes_a_cookie_and_leaves_the_address() -> None:
    client = guarded(Access("0.0.0.0", fixed_token=TOKEN))
    answer = client.get(f"/perturb?run=a%2Fb&token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/perturb?run=a%2Fb")
    assert {"httponly", "path=/", "samesite=lax"} <= set(answer.headers["set-cookie"].lower().split("; "))
    assert client.get("/perturb?run=a%2Fb").text == "in: run=a%2Fb"
    assert client.get("/runs?token=another-one").text == "in: token=another-one"
    assert guarded(Access("0.0.0.0", fixed_token=TOKEN)).get("/runs").status_code == 401


def test_a_page_elsewhere_cannot_be_the_target_of_the_way_back() -> None:
    client = guarded(Access("0.0.0.0", fixed_token=TOKEN))
    assert client.get(f"http://127.0.0.1:7860//evil.example/?token={TOKEN}").status_code == 404


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(secrets, "compare_digest", lambda *pair: compared.append(pair) or False)
    assert guarded(Access("0.0.0.0", fixed_token=TOKEN)).get(f"/runs?token={TOKEN}").status_code == 401
    assert (TOKEN.encode(), TOKEN.encode()) in compared


@pytest.mark.parametrize(
    ("access", "host", "known"),
    [
        (Access(), "localhost:7860", True),
        (Access(), "[::1]:7860", True),
        (Access(), "LOCALHOST", True),
        (Access(), "evil.example:7860", False),
        (Access(), "127.0.0.1.evil.example", False),
        (Access(), "192.168.0.7:7860", False),
        (Access(), "", False),
        (Access(), "[::1", False),
        (Access(), "user@localhost:7860", True),
        (Access(names=("video.example",)), "video.example", True),
        (Access("192.168.0.7"), "192.168.0.7:7860", True),
        (Access("192.168.0.7"), "192.168.0.8:7860", False),
        (Access("0.0.0.0"), "192.168.0.7:7860", True),
        (Access("0.0.0.0"), "[fe80::1]:7860", True),
        (Access("0.0.0.0"), f"{socket.gethostname()}:7860", True),
        (Access("0.0.0.0"), "evil.example:7860", False),
        (Access("0.0.0.0", names=("Video.Example",)), "video.example:7860", True),
        (Access("::"), "evil.example", False),
        (Access(""), "", False),
    ],
)
def test_only_its_own_names_lead_to_the_app(access: Access, host: str, known: bool) -> None:
    answer = guarded(access).get(f"/runs?token={access.token}", headers={"Host": host})
    assert (answer.status_code != 421) is known


def test_no_websocket_passes() -> None:
    with pytest.raises(WebSocketDisconnect), guarded(Access()).websocket_connect("/runs"):
        pass


def test_the_addresses_that_are_printed_open_the_app() -> None:
    assert Access().urls == ["http://127.0.0.1:7860"]
    assert Access("::1", 7000, fixed_token=TOKEN).urls == [f"http://[::1]:7000/?token={TOKEN}"]
    access = Access("0.0.0.0", names=("video.example",))
    for url in access.urls:
        host, _, rest = url.removeprefix("http://").partition("/")
        answer = guarded(access, host).get(f"/{rest}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert [url.partition(":7860")[0] for url in access.urls][-1] == "http://127.0.0.1"


@pytest.fixture
def private(tmp_path: Path) -> Iterator[TestClient]:
    config = WebConfig(("scenes",), Access("0.0.0.0", fixed_token=TOKEN), tmp_path / "root")
    with TestClient(application_of(config), base_url="http://192.168.0.7:7860") as client:
        yield client


def test_the_whole_app_is_behind_the_token(private: TestClient) -> None:
    for address in ADDRESSES:
        assert private.get(address).status_code == 401
    assert "gradio_config" in private.get(f"/?token={TOKEN}").text
    assert private.get("/gradio_api/app_id").json()["app_id"]
    upload = {"files": ("a.mp4", b"1234", "video/mp4")}
    assert private.post("/gradio_api/upload", files=upload).status_code == 200
    private.cookies.clear()
    assert private.post("/gradio_api/upload", files=upload).status_code == 401
