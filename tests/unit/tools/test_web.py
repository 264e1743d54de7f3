"""Reading web pages: real servers on loopback, and every way around the check of addresses."""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import socket
import ssl
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolCall

from tools import ToolInputError, ToolRegistrationError, acall
from tools.builtin import build_web_tools
from tools.builtin.markdown import to_markdown

Answer = Callable[[BaseHTTPRequestHandler], None]
PAGE = """<!doctype html><html><head><title>Towns &amp; rivers</title><style>p{}</style></head><body>
<nav><a href="/">Home</a></nav><main><h2>Rome</h2><p>On the <a href="/tiber">Tiber</a>, <b>old</b>.</p>
<script>alert(1)</script><a href="javascript:alert(1)">click</a>
<table><tr><th>a</th></tr><tr><td>1</td></tr></table>
</main></body></html>"""


class Server:
    """A server whose answers a test sets by path; it notes what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append((self.path, dict(self.headers)))
                try:
                    server.answers[self.path.partition("?")[0]](self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def says(self, path: str, body: bytes | str, kind: str = "text/html", **headers: str) -> None:
        data = body.encode() if isinstance(body, str) else body

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Type", kind)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

        self.answers[path] = answer

    def redirects(self, path: str, target: str, status: int = 302) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Location", target)
            handler.send_header("Set-Cookie", "a=b")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        self.answers[path] = answer

    def url(self, path: str = "/", host: str = "site.test") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture(autouse=True)
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only addresses reach the system: a name would be resolved a second time, perhaps to another address."""
    real = socket.getaddrinfo

    def strict(host: Any, *args: Any, **kwargs: Any) -> Any:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", strict)


class Names:
    """A resolver whose answers a test sets; a list of lists is given out one after the other."""

    def __init__(self, **hosts: Any) -> None:
        self.hosts = {name.replace("_", "."): value for name, value in hosts.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answer = self.hosts.get(host, [])
        return answer.pop(0) if answer and isinstance(answer[0], list) else answer


async def read(
    url: str, server: Server | None = None, names: Names | None = None, start: int = 0, **options: Any
) -> Any:
    if server is not None:
        options.setdefault("allow", [f"site.test:{server.port}"])
        names = names or Names(site_test=["127.0.0.1"])
    (fetch,) = build_web_tools(resolve=names, **options)
    return await acall(
        fetch, ToolCall(name="fetch_page", args={"url": url, "start": start}, id="1", type="tool_call")
    )


async def test_a_page_becomes_markdown(server):
    server.says("/", PAGE, "text/html; charset=utf-8")
    outcome = await read(server.url(), server)
    assert outcome.message.text == (
        f"Content of {server.url()}:\n\n# Towns & rivers\n\n## Rome\n\n"
        f"On the [Tiber]({server.url('/tiber')}), **old**.\n\nclick\n\n| a |\n| --- |\n| 1 |"
    )
    path, headers = server.asked[0]
    assert path == "/"
    assert headers["Host"] == f"site.test:{server.port}"


async def test_text_and_json_come_as_they_are(server):
    server.says("/data", '{"a": 1}', "application/json")
    assert (await read(server.url("/data"), server)).message.text.endswith('{"a": 1}')
    server.says("/old", "Zürich".encode("latin-1"), "text/plain; charset=iso-8859-1")
    assert "Zürich" in (await read(server.url("/old"), server)).message.text
    server.says("/meta", '<meta charset="latin-1"><p>Zürich'.encode("latin-1"))
    assert "Zürich" in (await read(server.url("/meta"), server)).message.text
    server.says("/odd", b"plain \xff", "text/plain; charset=nonsense")
    assert "plain" in (await read(server.url("/odd"), server)).message.text


async def test_what_is_no_text_is_refused(server):
    server.says("/picture", b"\x89PNG", "image/png")
    assert "is no text, but image/png" in (await read(server.url("/picture"), server)).message.text


async def test_long_pages_are_read_in_parts(server):
    server.says("/", "x" * 9_000 + "y" * 100, "text/plain")
    first = (await read(server.url(), server)).message.text
    assert "[Characters 0 to 9,000 of 9,100" in first
    rest = (await read(server.url(), server, start=9_000)).message.text
    assert rest.endswith("y" * 100)
    assert "has 9,100 characters" in (await read(server.url(), server, start=9_100)).message.text


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "169.254.169.254",
        "10.1.2.3",
        "100.64.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "fe80::1",
    ],
)
async def test_a_name_that_stands_for_an_address_that_is_not_public(server, address):
    server.says("/", "secret")
    names = Names(evil_test=[address])
    outcome = await read(server.url(host="evil.test"), server, names)
    assert isinstance(outcome.error, ToolInputError)
    assert "not on the public internet" in outcome.message.text
    both = await read(server.url(host="evil.test"), server, Names(evil_test=["1.1.1.1", address]))
    assert isinstance(both.error, ToolInputError)
    assert server.asked == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:7f00:1]", "0", "127.1", "2130706433", "0x7f000001"]
)
async def test_an_address_in_the_place_of_a_name(server, monkeypatch, host):
    monkeypatch.undo()  # the system's own resolution, which knows all these forms
    server.says("/", "secret")
    outcome = await read(server.url(host=host))
    assert not outcome.ok
    assert server.asked == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_checked_like_the_first_address(server, status):
    server.says("/secret", "secret")
    server.redirects("/", server.url("/secret", host="inside.test"), status)
    names = Names(site_test=["127.0.0.1"], inside_test=["127.0.0.1"])
    outcome = await read(server.url(), server, names)
    assert "inside.test may not be read" in outcome.message.text
    assert [path for path, _ in server.asked] == ["/"]


async def test_redirects_are_followed_without_cookies_and_only_so_often(server):
    server.says("/here", "arrived", "text/plain")
    server.redirects("/", "here")
    outcome = await read(server.url(), server)
    assert f"Content of {server.url('/here')}:\n\narrived" in outcome.message.text
    assert "Cookie" not in server.asked[-1][1]
    server.redirects("/loop", "/loop")
    assert "more than 5 redirects" in (await read(server.url("/loop"), server)).message.text
    server.redirects("/file", "file:///etc/passwd")
    assert "must begin with https://" in (await read(server.url("/file"), server)).message.text


async def test_the_connection_goes_to_the_address_that_was_checked(server):
    server.says("/", "public", "text/plain")
    # The second answer would be the one that a client gets that resolves the name again.
    names = Names(site_test=[["127.0.0.1"], ["127.0.0.2"]])
    outcome = await read(server.url(), server, names)
    assert outcome.message.text.endswith("public")
    assert names.asked == ["site.test"]
    # A redirect to itself is a new hop: the name is asked for again, and what it says now is checked.
    server.redirects("/again", server.url(host="flips.test"))
    flips = Names(site_test=["127.0.0.1"], flips_test=[["127.0.0.1"]])
    assert "flips.test may not be read" in (await read(server.url("/again"), server, flips)).message.text


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///etc/passwd", "must begin with"),
        ("ftp://site.test/", "must begin with"),
        ("site.test", "must begin with"),
        ("http://", "must begin with"),
        ("http://user:hunter2@site.test/", "password"),
        ("http://site.test:22/", "no web server"),
        ("http://[::1/", "no web address"),
        ("http://none.test/", "there is no host"),
        ("http://a\x00b/", "no"),
        ("", "must begin with"),
    ],
)
async def test_addresses_that_are_none(url, words):
    outcome = await read(url, names=Names(site_test=["1.1.1.1"]))
    assert not outcome.ok
    assert words in outcome.message.text
    assert "hunter2" not in outcome.message.text


async def test_only_named_hosts_where_they_are_named(server):
    server.says("/", "fine", "text/plain")
    assert (await read(server.url(), server, only=["*.test"])).ok
    assert not (await read(server.url(), server, only="*.org")).ok  # one host is a list of it
    outcome = await read(server.url(), server, only=["docs.test"])
    assert "allowed: docs.test" in outcome.message.text


async def test_a_page_that_is_too_large_is_cut_while_it_is_read(server):
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/plain")
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 65536)

    server.answers["/"] = endless
    text = (await read(server.url(), server, max_bytes=100_000)).message.text
    assert "larger than what is read" in text


async def test_a_small_page_that_unpacks_to_gigabytes(server):
    server.says("/", gzip.compress(b"x" * 50_000_000), "text/plain", Content_Encoding="gzip")
    text = (await read(server.url(), server, max_bytes=100_000)).message.text
    assert "of 100,000" in text
    server.says("/small", gzip.compress(b"unpacked"), "text/plain", Content_Encoding="gzip")
    assert (await read(server.url("/small"), server)).message.text.endswith("unpacked")
    deflated = zlib.compress(b"deflated")
    for name, data in (("/zlib", deflated), ("/raw", deflated[2:-4])):  # the second is wrong, and usual
        server.says(name, data, "text/plain", Content_Encoding="deflate")
        assert (await read(server.url(name), server)).message.text.endswith("deflated")
    parts = gzip.compress(b"packed ") + gzip.compress(b"in two")
    server.says("/parts", parts + b"\0\0", "text/plain", Content_Encoding="gzip")
    assert (await read(server.url("/parts"), server)).message.text.endswith("packed in two")
    server.says("/bad", b"not gzip", "text/plain", Content_Encoding="gzip")
    assert "cannot be unpacked" in (await read(server.url("/bad"), server)).message.text
    server.says("/br", b"x", "text/plain", Content_Encoding="br")
    assert "'br'" in (await read(server.url("/br"), server)).message.text


async def test_a_server_that_drips_or_hangs_is_left(server):
    stop = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/plain")
        handler.end_headers()
        while not stop.wait(0.05):
            handler.wfile.write(b"x")

    server.answers["/"] = drip
    outcome = await read(server.url(), server, timeout=1)
    stop.set()
    assert "no end within 1 s" in outcome.message.text


async def test_errors_of_servers_are_told(server):
    server.answers["/"] = lambda handler: handler.send_error(404)
    assert "the server says 404" in (await read(server.url(), server)).message.text
    server.http.shutdown()
    server.http.server_close()
    assert "cannot be read" in (await read(server.url(), server)).message.text


def certificate(folder: Path, name: str) -> Path:
    """A certificate for a name, signed by itself, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "certificate.pem"
    file.write_bytes(made.public_bytes(encoding) + private)
    return file


async def test_the_certificate_is_that_of_the_name_and_not_of_the_address(server, tmp_path, monkeypatch):
    file = certificate(tmp_path, "site.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    server.says("/", "private words", "text/plain")
    url = server.url().replace("http:", "https:")
    assert "private words" in (await read(url, server)).message.text
    other = url.replace("site.test", "other.test")
    names = Names(other_test=["127.0.0.1"])
    outcome = await read(other, server, names, allow=[f"other.test:{server.port}"])
    assert "cannot be read" in outcome.message.text
    assert "certificate" in outcome.message.text


async def test_proxies_and_passwords_of_the_environment_are_not_used(server, monkeypatch, tmp_path):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    netrc = tmp_path / "netrc"
    netrc.write_text(
        "machine site.test login me password hunter2\nmachine 127.0.0.1 login me password hunter2\n"
    )
    monkeypatch.setenv("NETRC", str(netrc))
    server.says("/", "direct", "text/plain")
    assert (await read(server.url(), server)).ok
    assert "Authorization" not in server.asked[0][1]


def test_html_that_is_meant_to_break_the_reader():
    deep = "<div>" * 20_000 + "bottom" + "</div>" * 20_000
    assert "bottom" in to_markdown(deep, "http://site.test/")
    assert to_markdown("", "http://site.test/") == ""
    assert "x" in to_markdown("<p>x<a href='http://[broken'>y</a>", "http://site.test/")
    assert "data:" not in to_markdown("<img src='data:image/png;base64,AAAA' alt='z'>", "http://site.test/")


def test_a_missing_extra_names_itself(monkeypatch):
    monkeypatch.setitem(sys.modules, "markdownify", None)
    with pytest.raises(ToolRegistrationError, match=r"vllm-agent\[web\]"):
        build_web_tools()
