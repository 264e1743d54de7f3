"""Options that several commands share, and the way from them to settings."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from agent.cli.debugging import debugging
from agent.errors import ConfigurationError
from agent.settings import PROTOCOLS, Settings, load_settings

Command = TypeVar("Command", bound=Callable[..., Any])


def _engine_arguments(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> Mapping[str, Any] | None:
    """``name=value`` pairs, with values read as JSON where they are JSON."""
    arguments = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not (equals and name.isidentifier()):
            raise click.BadParameter(f"{pair!r} is not of the form name=value", context, parameter)
        try:
            arguments[name] = json.loads(text)
        except (ValueError, RecursionError):
            arguments[name] = text
    return arguments or None


_FILE = "conversations.sqlite"  # as in agent.persistence.locations, whose import takes longer than a help


class _DatabaseOption(click.Option):
    """Names the file in its help, which only some users have chosen and all may look for."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        try:
            settings = load_settings()
        except ConfigurationError:  # for the commands that need it to tell
            place = "a SQLite file in your data directory"
        else:
            # An address may have a password in it.
            place = "as in the settings" if settings.database else str(settings.directory / _FILE)
        return "--database PATH|URL", f"{self.help} [default: {place}]"


class Asking(click.Command):
    """A command with a question, which a shell cuts into words where it stands without quotes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the words apart, and say of one too many what is likely wrong."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if not error.message.startswith("Got unexpected extra argument"):
                raise
            hint = 'put the question in quotes: "What is 15 * 23?"'
            raise click.UsageError(f"{error.message}; {hint}", ctx) from error


SETTINGS = (
    "The options from --model to --database are settings too: --max-tokens is VLLM_AGENT_MAX_TOKENS in the "
    'environment, max_tokens in config.toml ("vllm-agent doctor" says where that is); --vllm-arg is the '
    "table [vllm] there. Settings without an option: api_key (of --base-url), encryption_key, home, "
    "warm_minutes, metrics_port, otlp_traces_endpoint."
)
"""Stands at the end of the help of every command that talks to a model."""

DATABASE = click.option(
    "--database", cls=_DatabaseOption, metavar="PATH|URL", help="Where conversations are kept."
)
TOOLS_CONFIG = click.option(
    "--tools-config",
    metavar="FILE",
    help="TOML file of more tools: modules, MCP servers, toolkits, policies. [default: installed tools]",
)
IN_PROCESS = click.option(
    "--in-process",
    is_flag=True,
    help="Run the model in this process, not in a server that is kept for the next command.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")

_MODEL = (
    click.option(
        "--model", "-m", metavar="MODEL", help="Hub id or directory. [default: the embedded 135M model]"
    ),
    click.option("--base-url", metavar="URL", help="Use a running vLLM server; no engine is started here."),
    click.option(
        "--protocol",
        type=click.Choice(PROTOCOLS),
        help="How tools are called: the model's own way, or as text. [default: auto]",
    ),
    click.option(
        "--temperature",
        "-t",
        type=click.FloatRange(0, 2),
        help="0 is greedy. [default: 0 for the embedded model, 0.7 for others]",
    ),
    click.option("--max-tokens", type=click.IntRange(1), help="Tokens per answer at most. [default: 512]"),
    click.option(
        "--vllm-arg",
        "vllm",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_engine_arguments,
        help="Any engine argument of vLLM, for example max_model_len=4096. May be repeated.",
    ),
)
_AGENT = (
    click.option("--system", metavar="TEXT", help="What the model is told before every conversation."),
    click.option(
        "--graph",
        metavar="NAME",
        help='The graph that answers; "vllm-agent graph list" names them. [default: react]',
    ),
    click.option(
        "--tools",
        metavar="NAME,…",
        help='Tools that the model may call; "vllm-agent tools list" names them. [default: all]',
    ),
    click.option("--no-tools", is_flag=True, help="Give the model no tools."),
    click.option(
        "--max-steps",
        type=click.IntRange(1),
        help="Model calls with tools per question at most. [default: 10]",
    ),
    TOOLS_CONFIG,
    click.option(
        "--documents",
        metavar="FOLDER",
        help="Markdown and text files that --graph retrieval answers from. [default: none]",
    ),
    click.option(
        "--embeddings",
        metavar="MODEL",
        help="Find documents by meaning too: hub id, directory, or 'default'. [default: by words alone]",
    ),
    click.option(
        "--reranker",
        metavar="MODEL",
        help="Put found documents in order: hub id, directory, or 'default'. [default: as they were found]",
    ),
    DATABASE,
)


def agent_options(command: Command) -> Command:
    """Add the options of every command that talks to a model; they arrive as one ``settings``."""

    @functools.wraps(command)
    def wrapped(*args: Any, no_tools: bool, **given: Any) -> Any:
        flags = {name: given.pop(name) for name in _AGENT_FLAGS}
        if no_tools:
            if flags["tools"] is not None:
                raise click.UsageError("--tools and --no-tools contradict each other.")
            flags["tools"] = ()
        if given.pop("in_process", False):
            flags["warm_minutes"] = 0
        if debugging() and flags["base_url"] is None:
            flags["vllm"] = {"enable_log_requests": True, **(flags["vllm"] or {})}
            flags["warm_minutes"] = 0  # what the engine logs is to be seen here
        return command(*args, settings=load_settings(flags), **given)

    for option in reversed((*_MODEL, *_AGENT)):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]  # click's decorators keep the signature


_AGENT_FLAGS = (
    "model",
    "base_url",
    "protocol",
    "temperature",
    "max_tokens",
    "vllm",
    "system",
    "graph",
    "tools",
    "max_steps",
    "tools_config",
    "documents",
    "embeddings",
    "reranker",
    "database",
)


def database_settings(database: str | None) -> Settings:
    """Settings of a command that only opens the conversations."""
    return load_settings({"database": database})
