"""HTML as Markdown: the text of a page in the form that models read best."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin

from tools.errors import ToolError

_NO_TEXT = ("script", "style", "noscript", "template", "svg", "iframe", "object", "nav", "form", "head")


def to_markdown(html: str, base: str) -> str:
    """The title and the text of a page.

    Args:
        html: The page.
        base: Its address, from which its links are resolved.

    Raises:
        ToolError: The extra ``web`` is missing.
    """
    try:
        from bs4 import BeautifulSoup
        from markdownify import MarkdownConverter
    except ImportError as error:
        raise ToolError("reading web pages needs: pip install 'vllm-agent[web]'") from error
    page = BeautifulSoup(html, "html.parser")
    title = page.title.get_text(" ", strip=True) if page.title else ""
    for element in page.find_all(_NO_TEXT):
        element.decompose()
    content: Any = page.find("main") or page.find("article") or page
    for link in content.find_all("a", href=True):
        address = _resolved(base, str(link["href"]))
        if address is None:
            link.unwrap()
        else:
            link["href"] = address
    try:
        text: str = MarkdownConverter(heading_style="ATX", strip=["img"]).convert_soup(content)
    except RecursionError:  # thousands of elements inside each other are no text worth a form
        text = content.get_text("\n", strip=True)
    lines = [line.rstrip() for line in text.strip().splitlines()]
    body = "\n".join(line for line, before in zip(lines, ["x", *lines], strict=False) if line or before)
    return f"# {title}\n\n{body}" if title and title not in body[:500] else body


def _resolved(base: str, link: str) -> str | None:
    try:
        address = urljoin(base, link)
    except ValueError:  # such as a bracket that is not closed
        return None
    return address if address.startswith(("http://", "https://")) else None
