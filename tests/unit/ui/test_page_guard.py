"""Nobody gets in without the token, under another name, or from another site."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from agent.ui.guard import Guard

TOKEN, PORT = "a-secret", 8123
HERE = f"http://127.0.0.1:{PORT}"


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("in")
    await websocket.close()


@pytest.fixture
def client() -> TestClient:
    routes = [Route("/", lambda _: PlainTextResponse("in")), WebSocketRoute("/ws", echo)]
    guard: Any = Guard(Starlette(routes=routes), token=TOKEN, port=PORT)  # type: ignore[arg-type]
    return TestClient(guard, base_url=HERE, follow_redirects=False)


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=%C3%A4", f"?Token={TOKEN}"])
def test_without_the_token_nothing_is_served(client: TestClient, query: str) -> None:
    answer = client.get(f"/{query}")
    assert answer.status_code == 401
    assert "vllm-agent ui" in answer.text
    assert "set-cookie" not in answer.headers


def test_the_token_becomes_a_cookie_and_leaves_the_address(client: TestClient) -> None:
    answer = client.get(f"/?thread=x&token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?thread=x")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert client.get("/?thread=x").text == "in"


@pytest.mark.parametrize("other", ['a={"b": 1}', "a@b=1", "a[0]=1", "a=1 2", "a", "=", "a=ä"])
def test_cookies_of_other_programs_on_this_machine_keep_nobody_out(client: TestClient, other: str) -> None:
    cookie = f"{other}; vllm_agent_ui_{PORT}={TOKEN}; c=d".encode()
    assert client.get("/", headers={"cookie": cookie}).status_code == 200  # type: ignore[dict-item]


def test_with_the_cookie_another_name_or_site_is_refused_all_the_same(client: TestClient) -> None:
    client.get(f"/?token={TOKEN}")
    assert client.get("/", headers={"host": f"rebound.example:{PORT}"}).status_code == 421
    assert client.get("/", headers={"host": "127.0.0.1:1"}).status_code == 421
    assert client.get("/", headers={"origin": "http://evil.example"}).status_code == 403
    assert client.get("/", headers={"origin": "null"}).status_code == 403
    assert client.get("/", headers={"origin": HERE}).status_code == 200


@pytest.mark.parametrize(
    ("cookie", "headers", "served"),
    [
        (True, {"origin": HERE}, True),
        (False, {"origin": HERE}, False),
        (True, {"origin": "http://evil.example"}, False),
        (True, {"host": "rebound.example"}, False),
    ],
)
def test_sockets_are_guarded_too(
    client: TestClient, cookie: bool, headers: dict[str, str], served: bool
) -> None:
    if cookie:  # the test client would keep it for another host
        headers = {"cookie": f"vllm_agent_ui_{PORT}={TOKEN}", **headers}
    if served:
        with client.websocket_connect("/ws", headers={"host": f"127.0.0.1:{PORT}", **headers}) as socket:
            assert socket.receive_text() == "in"
        return
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        client.websocket_connect("/ws", headers={"host": f"127.0.0.1:{PORT}", **headers}),
    ):
        pass
    assert refused.value.code == 1008


def test_a_page_may_fetch_nothing_from_elsewhere(client: TestClient) -> None:
    client.get(f"/?token={TOKEN}")
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "https:" not in policy
    assert "*" not in policy
