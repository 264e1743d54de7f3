"""``python -m agent.formats.serving MODEL``: how ``vllm serve`` is started to speak the text protocol."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path

import platformdirs

from agent.errors import ModelNotFoundError
from agent.formats.serving import PARSER, PLUGIN
from agent.protocols.control import control_tokens
from agent.protocols.templates import text_template


def serving_arguments(template: Path) -> list[str]:
    """Return the arguments of ``vllm serve`` beside the model.

    Args:
        template: Where the chat template of :func:`write_template` lies.
    """
    return [
        *("--chat-template", str(template)),
        "--enable-auto-tool-choice",
        "--exclude-tools-when-tool-choice-none",
        *("--tool-parser-plugin", str(PLUGIN)),
        *("--tool-call-parser", PARSER),
    ]


def write_template(model: Path, template: Path) -> Path:
    """Write the chat template of a model with the text protocol.

    Args:
        model: The model's directory.
        template: The file to write.

    Raises:
        ModelNotFoundError: There is no such directory.
    """
    if not (model / "config.json").is_file():
        msg = f"{model} is no model directory: it has no config.json; give the directory that has one"
        raise ModelNotFoundError(msg)
    template.parent.mkdir(parents=True, exist_ok=True)
    text = text_template(own_template(model), control_tokens=control_tokens_of(model))
    template.write_text(text, encoding="utf-8")
    return template


def control_tokens_of(model: Path) -> tuple[str, ...]:
    """Return the control tokens that the tokenizer's files in a model's directory name."""
    special, added = set[str](), set[str]()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        with suppress(OSError, ValueError, RecursionError):
            known = json.loads((model / name).read_text(encoding="utf-8"))
            records = [
                *(known.get("added_tokens") or ()),
                *(known.get("added_tokens_decoder") or {}).values(),
            ]
            added.update(record["content"] for record in records)
            special.update(record["content"] for record in records if record.get("special"))
    return control_tokens(special, added)


def own_template(model: Path) -> str | None:
    """Return the chat template that lies in a model's directory; None where it has none."""
    file = model / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    try:
        found = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(found, list):  # several, by name
        found = {one["name"]: one["template"] for one in found}.get("default")
    return found if isinstance(found, str) else None


def _usual_place(model: Path) -> Path:
    """Return where the template of a model is written, apart from those of others whose name is the same."""
    apart = hashlib.sha256(os.fsencode(model)).hexdigest()[:8]
    return platformdirs.user_cache_path("vllm-agent") / "templates" / f"{model.name}-{apart}.jinja"


def main(arguments: list[str] | None = None) -> int:
    """Write the template and print the server's arguments."""
    parser = argparse.ArgumentParser(prog="python -m agent.formats.serving", description=__doc__)
    parser.add_argument("model", type=Path, help="the model's directory")
    parser.add_argument("--template", type=Path, help="where to write the chat template")
    options = parser.parse_args(arguments)
    try:
        template = write_template(options.model, options.template or _usual_place(options.model.resolve()))
    except (ModelNotFoundError, OSError, ValueError) as error:  # the last for a template that is no UTF-8
        parser.exit(1, f"{error}\n")
    sys.stdout.write(shlex.join(serving_arguments(template)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
