"""What a model is, from wherever it is: a directory, the catalogue, or the hub.

Of the hub only ``config.json`` and the list of tensors are asked, never a weight. The hub's cache on this
machine is looked at first.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.bearer import bearer_token
from agent.catalogue.checkpoint import (
    INDEX,
    StoredTensor,
    header_length,
    index_files,
    local_tensors,
    read_header,
)
from agent.catalogue.models import CatalogueModel, catalogue, find_model
from agent.errors import FitError, ModelNotFoundError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*")
_SECONDS = 15.0
_LARGEST_JSON = 64 << 20
_MOST_SHARDS = 200
_MISSING = (401, 403, 404)


@dataclass(frozen=True)
class ModelSource:
    """What is known about one model."""

    name: str
    """The id or the directory."""
    config: Mapping[str, Any]
    """Its ``config.json``, or as much of it as the catalogue has."""
    kind: str
    """``"directory"``, ``"catalogue"`` or ``"hub"``."""
    tensors: tuple[StoredTensor, ...] | None = None
    """The tensors of the checkpoint, where they could be listed."""
    entry: CatalogueModel | None = None
    """The catalogue's entry."""
    longest: int | None = None
    """What the tokenizer or sentence-transformers limit a text to."""


def find_source(
    model: str | os.PathLike[str], *, endpoint: str | None = None, offline: bool = False
) -> ModelSource:
    """Find out about a model.

    Args:
        model: A directory, an id of the catalogue (its last part is enough), or any hub id.
        endpoint: The hub's address; None for ``HF_ENDPOINT``, or else the hub itself.
        offline: Whether to ask nothing of the network; ``HF_HUB_OFFLINE=1`` says so too.

    Raises:
        ModelNotFoundError: There is no such model, or the hub cannot be asked.
        FitError: Its files are broken or incomplete.
        ConfigurationError: ``HF_TOKEN`` is no token.
    """
    name = os.fspath(model)
    try:
        path = Path(name).expanduser()
        is_directory = path.is_dir()
    except (OSError, RuntimeError) as error:  # too long, or ~ of nobody
        msg = f"no model can be called {name[:200]!r}: {getattr(error, 'strerror', None) or error}"
        raise ModelNotFoundError(msg) from error
    if is_directory:
        return _directory(path)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelNotFoundError(f"no model directory at {name!r}")
    known = _entry(name)
    if known is not None:
        return ModelSource(known.id, known.full_config, "catalogue", entry=known)
    if not _HUB_ID.fullmatch(name):
        find_model(name)  # says which ones are close
    cached = _cached(name)
    if cached is not None:
        return _directory(cached, name=name)
    if offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes"):
        msg = (
            f"the model {name!r} is neither in the catalogue nor on this machine, and the hub may not be "
            "asked (offline)"
        )
        raise ModelNotFoundError(msg)
    return _hub(name, endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co")


def _entry(name: str) -> CatalogueModel | None:
    try:
        return find_model(name)
    except ModelNotFoundError:
        return None


def _directory(path: Path, *, name: str | None = None) -> ModelSource:
    file = path / "config.json"
    if not file.is_file():
        raise FitError(f"{path} has no config.json: the size of the model is unknown without it")
    config = _read_json(file.read_bytes(), str(file))
    tensors = local_tensors(path)
    return ModelSource(
        name or str(path),
        config,
        "directory",
        tensors=None if tensors is None else tuple(tensors),
        entry=_entry(name) if name else None,
        longest=_longest(path, config),
    )


def _longest(path: Path, config: Mapping[str, Any]) -> int | None:
    """The limit of sentence-transformers, which vLLM obeys (``sentence_bert_config.json``)."""
    file = path / "sentence_bert_config.json"
    if not file.is_file():
        return None
    value = _read_json(file.read_bytes(), str(file)).get("max_seq_length")
    return value if isinstance(value, int) and value > 0 else None


def _read_json(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FitError(f"{where} is broken JSON: {error}") from error
    if not isinstance(value, dict):
        raise FitError(f"{where} should be a JSON object, and is a {type(value).__name__}")
    return value


def _cached(name: str) -> Path | None:
    """The newest snapshot of a model in the hub's cache on this machine."""
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{shared}/huggingface"
    root = Path(os.path.expandvars(os.path.expanduser(os.environ.get("HF_HUB_CACHE") or f"{home}/hub")))
    snapshots = root / f"models--{name.replace('/', '--')}" / "snapshots"
    try:
        found = [each for each in snapshots.glob("*") if (each / "config.json").is_file()]
        return max(found, key=lambda each: each.stat().st_mtime, default=None)
    except OSError:  # somebody else's, as of root in a container
        return None


# -- the hub
# ---------------------------------------------------------------------------------------------------


def _hub(name: str, endpoint: str) -> ModelSource:
    address = f"{endpoint.rstrip('/')}/{urllib.parse.quote(name)}/resolve/main/"
    data = _get(address + "config.json", name)
    if data is None:
        msg = f"no model {name!r}: the hub has no such id with a config.json (or it is private: set HF_TOKEN)"
        raise ModelNotFoundError(msg)
    tensors = _hub_tensors(address, name)
    return ModelSource(name, _read_json(data, f"config.json of {name}"), "hub", tensors=tensors)


def _hub_tensors(address: str, name: str) -> tuple[StoredTensor, ...] | None:
    """The tensors, by the headers of all files: a few kilobytes from the beginning of each."""
    index = _get(address + INDEX, name)
    files = index_files(index) if index is not None else ["model.safetensors"]
    if len(files) > _MOST_SHARDS:
        return None
    tensors: list[StoredTensor] = []
    for file in files:
        url = address + urllib.parse.quote(file)
        first = _get(url, name, span=(0, 7))
        if first is None:
            if index is None:
                return None  # stored in another form
            raise FitError(f"the index of {name} names {file}, which the hub does not have")
        length = header_length(first[:8])
        header = _get(url, name, span=(8, 7 + length))
        tensors += read_header(header or b"")
    return tuple(tensors)


def _get(url: str, name: str, *, span: tuple[int, int] | None = None) -> bytes | None:
    """Bytes of a file of the hub; None where there is no such file."""
    headers = {"User-Agent": "vllm-agent"}
    if token := bearer_token(os.environ.get("HF_TOKEN", ""), named="HF_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    if span:
        headers["Range"] = f"bytes={span[0]}-{span[1]}"
    if not url.startswith(("http://", "https://")):
        raise ModelNotFoundError(f"the hub's address {url!r} is no http address (see HF_ENDPOINT)")
    try:
        with urllib.request.build_opener(_Redirects).open(
            urllib.request.Request(url, headers=headers),  # noqa: S310 (checked above)
            timeout=_SECONDS,
        ) as answer:
            whole = span is not None and answer.status != 206  # a server that knows no ranges
            length = span[1] - span[0] + 1 if span else _LARGEST_JSON
            data: bytes = answer.read(span[1] + 1 if whole and span else length)
            return data[span[0] :] if whole and span else data
    except urllib.error.HTTPError as error:
        if error.code in _MISSING:
            return None
        raise ModelNotFoundError(f"the hub answers {error.code} for {name!r}; try again later") from error
    except (urllib.error.URLError, TimeoutError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        msg = (
            f"no model {name!r}: it is neither a directory, nor in the catalogue, nor on this machine, and "
            f"the hub cannot be asked ({reason}); `vllm-agent models list` shows the {len(catalogue())} that "
            "are known offline"
        )
        raise ModelNotFoundError(msg) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows the hub to where it stores large files, which is with others: they get no token."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and (following.host != req.host or following.type == "http" != req.type):
            following.remove_header("Authorization")
        return following
