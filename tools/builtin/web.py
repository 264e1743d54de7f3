"""Reading one public web page.

What a model asks for may have been put into its head by a page that it read before, so the address is not
trusted. Each hop of a redirect is checked like the first address: its name is resolved, every address that it
stands for must be public, and the connection is made to the very address that was checked. A name whose
answer changes between the check and the connection (DNS rebinding) gains nothing. Proxies of the environment
are not used: with one, the name would be resolved elsewhere.

A page can also carry data out: whoever can make the model fetch an address of their choice learns what stands
in it. Where that matters, name the hosts that may be read in ``only``, or let a person approve.
"""

from __future__ import annotations

import asyncio
import fnmatch
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.tools import BaseTool

from tools.builtin.addresses import is_public
from tools.builtin.markdown import to_markdown
from tools.builtin.options import several
from tools.decorator import tool
from tools.errors import ToolError, ToolInputError, ToolRegistrationError
from tools.policy import ToolPolicy
from tools.threads import in_thread

if TYPE_CHECKING:
    import httpx

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a host; the second argument is the port."""

_HOPS = 5
_PAGE = 9_000  # characters of a page that one call shows; more than the output limit would be lost
_HEADERS = {
    "User-Agent": "vllm-agent",
    "Accept": "text/html, text/*;q=0.9, application/json;q=0.9, */*;q=0.1",
    "Accept-Encoding": "gzip, deflate",
}
_TEXT = re.compile(r"text/|application/(json|xml|javascript|.*\+(json|xml))", re.IGNORECASE)
_HTML = re.compile(r"text/html|application/xhtml", re.IGNORECASE)
_GZIP = b"\x1f\x8b"  # what it begins with
_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset=["']?([\w-]{1,40})""", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What an address gave."""

    url: str
    """The last address, after redirects."""

    kind: str
    """Its media type, as the server says."""

    data: bytes
    """Its beginning."""

    whole: bool
    """Whether that is all of it."""

    charset: str | None
    """As the server says."""


def build_web_tools(
    *,
    only: Sequence[str] = (),
    allow: Sequence[str] = (),
    timeout: float = 20.0,
    max_bytes: int = 2_000_000,
    resolve: Resolver | None = None,
) -> list[BaseTool]:
    """A tool that reads a page.

    Args:
        only: Hosts that may be read, such as ``docs.python.org`` or ``*.wikipedia.org``; all if empty.
        allow: Hosts, as ``name`` or ``name:port``, that may be read although they are not public.
        timeout: Seconds for all of it, redirects included.
        max_bytes: Bytes of a page that are read, after they were unpacked.
        resolve: In the place of the system's name resolution.

    Raises:
        ToolRegistrationError: The extra ``web`` is missing, or a value makes no sense.
    """
    if not (timeout > 0 and max_bytes > 0):
        raise ToolRegistrationError(f"timeout={timeout!r} and max_bytes={max_bytes!r} must be above 0")
    try:
        import bs4  # noqa: F401
        import httpx  # noqa: F401
        import markdownify  # noqa: F401
    except ImportError as error:
        raise ToolRegistrationError("reading web pages needs: pip install 'vllm-agent[web]'") from error
    web = Web(only=only, allow=allow, timeout=timeout, max_bytes=max_bytes, resolve=resolve or _resolve)

    @tool(policy=ToolPolicy(timeout=timeout + 5, idempotent=True))
    async def fetch_page(url: str, start: int = 0) -> str:
        """Read a public web page or text file.

        Args:
            url: Its whole address, with https://.
            start: Character to begin at, for the rest of a long page.
        """
        fetched = await web.fetch(url)
        text = await in_thread(lambda: _text_of(fetched), name="fetch_page")
        return _shown(fetched, text, start)

    return [fetch_page]


class Web:
    """Gets pages, within limits."""

    def __init__(
        self,
        *,
        only: Sequence[str],
        allow: Sequence[str],
        timeout: float,
        max_bytes: int,
        resolve: Resolver,
    ) -> None:
        self._only = [host.casefold() for host in several(only)]
        self._allow = {host.casefold() for host in several(allow)}
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._resolve = resolve

    async def fetch(self, url: str) -> Fetched:
        """Get an address and follow its redirects.

        Raises:
            ToolInputError: The address, or one that it redirects to, may not be read or cannot be one.
            ToolError: The server cannot be reached, or answers with an error or with what is no text.
        """
        import httpx

        try:
            async with asyncio.timeout(self._timeout):
                return await self._follow(_parsed(url))
        except TimeoutError:
            raise ToolError(f"{url} cannot be read: no end within {self._timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise ToolError(f"{url} cannot be read: {str(error) or type(error).__name__}") from error

    async def _follow(self, url: httpx.URL) -> Fetched:
        import httpx

        # Certificates as usual; but no proxies, and no passwords from a .netrc file.
        async with httpx.AsyncClient(
            trust_env=False, verify=httpx.create_ssl_context(), timeout=self._timeout, headers=_HEADERS
        ) as client:
            for _ in range(_HOPS + 1):
                found = await self._hop(client, url)
                client.cookies.clear()
                if isinstance(found, Fetched):
                    return found
                url = found
        raise ToolError(f"{url} cannot be read: there are more than {_HOPS} redirects")

    async def _hop(self, client: httpx.AsyncClient, url: httpx.URL) -> Fetched | httpx.URL:
        """One request: the page, or where it redirects to."""
        request = client.build_request(
            "GET",
            url.copy_with(host=await self._checked(url), fragment=None),
            headers={"Host": url.netloc.decode("ascii")},
            extensions={"sni_hostname": url.raw_host.decode("ascii").strip("[]")},
        )
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            target = response.headers.get("location")
            if response.is_redirect and target:
                return _parsed(str(url.join(target)))
            if response.is_error:
                raise ToolError(f"{url} cannot be read: the server says {response.status_code}")
            kind = response.headers.get("content-type", "text/plain")
            if not _TEXT.match(kind) and not _HTML.match(kind):
                raise ToolError(f"{url} is no text, but {kind.partition(';')[0]}")
            data = b""
            async for part in _unpacked(response, self._max_bytes + 1):
                data += part
                if len(data) > self._max_bytes:
                    break
            return Fetched(
                url=str(url),
                kind=kind,
                data=data[: self._max_bytes],
                whole=len(data) <= self._max_bytes,
                charset=response.charset_encoding,
            )
        finally:
            await response.aclose()

    async def _checked(self, url: httpx.URL) -> str:
        """The address to connect to.

        Raises:
            ToolInputError: The host may not be read.
        """
        host = url.raw_host.decode("ascii").strip("[]").casefold().rstrip(".")
        port = url.port or (443 if url.scheme == "https" else 80)
        if self._only and not any(fnmatch.fnmatchcase(host, pattern) for pattern in self._only):
            raise ToolInputError(f"{host} may not be read; allowed: {', '.join(self._only)}")
        allowed = bool({host, f"{host}:{port}"} & self._allow)
        if not allowed and port not in (80, 443) and port < 1024:  # mail, shells and the like
            raise ToolInputError(f"{host}:{port} may not be read: there is no web server at that port")
        addresses = list(await self._resolve(host, port))
        if not addresses:
            raise ToolError(f"there is no host {host!r}")
        # One that is not public is enough: which of them would be used is for others to decide.
        if not allowed and not all(is_public(address) for address in addresses):
            raise ToolInputError(f"{host} may not be read: it is not on the public internet")
        return addresses[0]


async def _resolve(host: str, port: int) -> list[str]:
    import socket

    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    # IPv4 first: many machines have IPv6 addresses of others, and no way to them
    ordered = sorted(found, key=lambda each: each[0] != socket.AF_INET)
    return list(dict.fromkeys(str(each[4][0]) for each in ordered))


def _parsed(url: str) -> httpx.URL:
    import httpx

    try:
        address = httpx.URL(url.strip())
        host = address.raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError) as error:
        raise ToolInputError(f"{url!r} is no web address: {error}") from None
    if address.scheme not in ("http", "https") or not host:
        raise ToolInputError(f"{url!r} is no web address: it must begin with https:// or http://")
    if address.userinfo:
        raise ToolInputError(f"{address.host}: addresses with a user or a password in them are not read")
    return address


async def _unpacked(response: httpx.Response, limit: int) -> AsyncIterator[bytes]:
    """The body, unpacked in steps: a small one can unpack to gigabytes."""
    encoding = response.headers.get("content-encoding", "identity").strip().casefold()
    if encoding not in ("identity", "gzip", "x-gzip", "deflate", ""):
        raise ToolError(f"{response.url.host}: the encoding {encoding!r} of the page is not known")
    unpack: Any = None
    async for chunk in response.aiter_raw():
        if encoding in ("identity", ""):
            yield chunk
            continue
        rest = chunk
        while rest:
            if unpack is None:
                unpack = _unpacker(encoding, rest)
            elif unpack.eof:
                if not _GZIP.startswith(rest[:2]):
                    return  # it does not belong to the page
                unpack = _unpacker("gzip", rest)  # a page may be packed in several parts
            try:
                part = unpack.decompress(rest, limit)
            except zlib.error as error:
                raise ToolError(f"the page cannot be unpacked: {error}") from None
            yield part
            if unpack.unconsumed_tail:  # the limit was met
                return
            rest = unpack.unused_data


def _unpacker(encoding: str, beginning: bytes) -> Any:
    """What unpacks a page that begins so."""
    has_header = beginning[0] & 0x0F == zlib.DEFLATED or beginning[0] == _GZIP[0]
    if encoding == "deflate" and not has_header:  # many servers leave it out
        return zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)


def _text_of(fetched: Fetched) -> str:
    charset = fetched.charset
    is_html = _HTML.match(fetched.kind) is not None
    if charset is None and is_html and (found := _CHARSET.search(fetched.data[:4096])):
        charset = found[1].decode("ascii")
    try:
        text = fetched.data.decode(charset or "utf-8", "replace")
    except LookupError:  # an encoding that Python does not know
        text = fetched.data.decode("utf-8", "replace")
    return to_markdown(text, fetched.url) if is_html else text


def _shown(fetched: Fetched, text: str, start: int) -> str:
    if not 0 <= start <= max(len(text) - 1, 0):
        raise ToolInputError(f"start={start}: the page has {len(text):,} characters")
    shown = text[start : start + _PAGE]
    notes = []
    if start + len(shown) < len(text):
        notes.append(f"[Characters {start:,} to {start + len(shown):,} of {len(text):,}; go on with start.]")
    if not fetched.whole:
        notes.append("[The page is larger than what is read; its end is missing.]")
    return "\n\n".join([f"Content of {fetched.url}:", shown or "(The page is empty.)", *notes])
