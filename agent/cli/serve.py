"""``serve``: vLLM's own server, with the choices of the catalogue, and what becomes of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.app import server_directory
from agent.cli.console import ago, note, print_json, print_table, printable, warn
from agent.cli.options import JSON
from agent.cli.serve_view import LoadingBar, server_record, server_state
from agent.errors import AgentError, ConfigurationError
from agent.settings import Settings, load_settings

if TYPE_CHECKING:
    from agent.serving.order import ServerOrder
    from agent.serving.records import ServerDirectory, ServerRecord

_START = "start"
_LOOK = 0.2


class _Serve(click.Group):
    """``serve MODEL`` starts a server; ``serve status`` and ``serve stop`` are words of their own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the hidden command in front of what is none."""
        if not args or args[0] not in self.commands:
            args = [_START, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in self.commands if name != _START]


class _Start(click.Command):
    """Shows its own help as that of the group."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Leave the hidden word out."""
        formatter.write_usage("vllm-agent serve", "[MODEL] [OPTIONS] [FLAGS OF vllm serve]")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the other words."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str()) for name, command in _others(ctx)],
            )


def _others(ctx: click.Context) -> list[tuple[str, click.Command]]:
    assert ctx.parent is not None
    assert isinstance(ctx.parent.command, click.Group)
    return [(name, each) for name, each in ctx.parent.command.commands.items() if name != _START]


@click.group(cls=_Serve, short_help="Serve a model to others by HTTP, with vLLM's own server.")
def serve() -> None:
    """Serve a model to others by HTTP, with vLLM's own server."""


@serve.command(_START, cls=_Start, hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("words", metavar="[MODEL] [FLAGS]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 for everybody."
)
@click.option("--port", type=click.IntRange(1, 65535), help="[default: 8000, or a free one if that is taken]")
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    metavar="KEY",
    help="What clients have to send. Better from VLLM_API_KEY or a file: shells remember commands.",
)
@click.option("--api-key-file", type=click.Path(path_type=Path), help="The same from a file, one key a line.")
@click.option("--background", is_flag=True, help="Come back when it answers, and leave it running.")
@click.option(
    "--idle-minutes", type=click.FloatRange(min=0, min_open=True), help="Stop when unused for so long."
)
@click.option("--force", is_flag=True, help="Start even a model that will not fit, by what is foretold.")
@click.option("--model", hidden=True, help="MODEL, as older commands of vLLM have it.")
@JSON
def start(
    words: tuple[str, ...],
    host: str,
    port: int | None,
    api_keys: tuple[str, ...],
    api_key_file: Path | None,
    background: bool,
    idle_minutes: float | None,
    force: bool,
    model: str | None,
    as_json: bool,
) -> None:
    """Serve a model to others by HTTP, with vLLM's own server.

    MODEL is a hub id or a directory, and the embedded model without one. Every flag of "vllm serve" may
    follow it; a wrong one is refused before anything is loaded. Tool parser, reasoning parser and chat
    template are those of the model's family, tried on a call; a model without a tool format gets one that
    reads calls in text, so that any client of OpenAI's API can give it tools. A model that cannot fit is
    refused within a second, with the flags that would fit.

    The server ends with this command: Ctrl-C stops it in good order. With --background it stays, until
    "vllm-agent serve stop". "vllm-agent run" and "chat" use it for the same model by themselves.

    \b
    Examples:
      vllm-agent serve
      vllm-agent serve Qwen/Qwen3-8B --max-model-len 16384 --tensor-parallel-size 2
      vllm-agent serve /models/mine --port 9000 --api-key-file ~/keys --background
      vllm-agent serve status
    """
    from agent.catalogue.cache import cache_root
    from agent.serving import life
    from agent.serving.order import order_from_flags

    settings = load_settings()
    name, flags = _model(words, model)
    keys = _keys(api_keys, api_key_file, settings)
    chosen, flags = (name, flags) if name is not None else _embedded(flags)
    try:
        order = order_from_flags(
            chosen,
            flags,
            cache=cache_root(),
            host=host,
            port=port,
            keys=keys,
            force=force,
            idle_minutes=idle_minutes,
            attached=not background,
        )
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    _check_installed()
    order.check()
    directory = server_directory(settings)
    with directory.locked():  # two commands at once take two ports
        record = life.start(order, directory, cache=cache_root())
    _run(order, record, directory, background=background, as_json=as_json)


def _run(
    order: ServerOrder, record: ServerRecord, directory: ServerDirectory, *, background: bool, as_json: bool
) -> None:
    """Wait until it answers, and for its end if it belongs to this command."""
    from agent.serving import life

    try:
        with LoadingBar(_shown_name(record)) as bar:
            life.wait_until_ready(record, directory, shown=bar)
            bar.stop()
        by_port = order.http and "uds" not in order.arguments
        if order.port is None and by_port and not record.url.endswith(f":{_default_port()}"):
            note(f"port {_default_port()} is taken")
        _tell(record, directory, seconds=bar.seconds, background=background)
        if as_json:
            print_json(server_record(record, directory))
        elif record.http:
            click.echo(f"{record.url}/v1")
        if not background:
            _watch(record, directory)
    except (KeyboardInterrupt, SystemExit):
        note("stopping the server (again to kill it)")
        try:
            good = life.stop(record, directory)
        except KeyboardInterrupt:
            good = life.stop(record, directory, grace=0)
        note("the server has stopped" if good else "the server was killed")
        raise


def _watch(record: ServerRecord, directory: ServerDirectory) -> None:
    """Show warnings and errors until the server ends."""
    from agent.serving import life
    from agent.serving.output import plain, worth_showing

    lines = life.new_lines(directory.log(record.id))
    next(lines)  # those of the start were of no use to anybody
    stopped = False
    while life.running(record):
        stopped = stopped or not directory.holds(record)
        for line in next(lines):
            if worth_showing(line) and not stopped:
                warn(printable(plain(line)))
        time.sleep(_LOOK)
    directory.bury(record)
    # Whoever stops it is told how it went; vLLM with several processes ends with 1 then.
    if not stopped and not life.ended_well(record):
        raise life.start_failure(record, directory, ran=True)
    idle = record.idle_minutes
    why = "it was stopped" if idle is None else f"it was stopped, or not asked anything for {idle:g} minutes"
    note(f"the server has ended: {why}")


@serve.command()
@JSON
def status(as_json: bool) -> None:
    """Show the servers that run, those kept warm by other commands too.

    \b
    Examples:
      vllm-agent serve status
      vllm-agent serve status --json | jq -r '.[].url'
    """
    directory = server_directory(load_settings())
    records = directory.records()
    if as_json:
        print_json([server_record(record, directory) for record in records])
        return
    if not records:
        note("no server of yours runs here; start one: vllm-agent serve")
        return
    rows = []
    for record in records:
        state = server_state(record, directory)
        kind = "kept warm" if record.warm else "serve"
        rows.append([record.id, _shown_name(record), record.url, kind, state, ago(record.started)])
    print_table(["id", "model", "address", "kind", "state", "started"], rows, stretch=1)


@serve.command()
@click.argument("which", metavar="[ID|MODEL|PORT]", required=False)
@click.option("--all", "everything", is_flag=True, help="All of them.")
def stop(which: str | None, everything: bool) -> None:
    """Stop a server in good order, or kill it after half a minute.

    Without an argument the only one is stopped.

    \b
    Examples:
      vllm-agent serve stop
      vllm-agent serve stop 8000
      vllm-agent serve stop --all
    """
    from agent.serving import life

    if which is not None and everything:
        raise click.UsageError("--all and the name of one contradict each other.")
    directory = server_directory(load_settings())
    records = directory.records()
    chosen = records if everything else [_which(records, which)]
    for record in chosen:
        good = life.stop(record, directory)
        note(
            f"stopped {record.id} ({_shown_name(record)})" if good else f"killed {record.id}: it did not stop"
        )


def _which(records: Sequence[ServerRecord], which: str | None) -> ServerRecord:
    if not records:
        raise AgentError("no server of yours runs here")
    found = [each for each in records if which is None or _is(each, which)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"{each.id} ({_shown_name(each)})" for each in found or records)
    if not found:
        raise ConfigurationError(f"no server of yours is {which!r}; there are: {listed}")
    raise click.UsageError(f"Several servers run: name one, or give --all: {listed}")


def _is(record: ServerRecord, which: str) -> bool:
    named = which in (record.model, _shown_name(record)) or record.url.endswith(f":{which}")
    return named or record.id.startswith(which)


def _model(words: tuple[str, ...], model: str | None) -> tuple[str | None, list[str]]:
    """The model, and the flags behind it."""
    flags = list(words)
    first = flags.pop(0) if flags and not flags[0].startswith("-") else None
    if "" in (first, model):
        raise click.UsageError("MODEL is empty; leave it out to serve the embedded model.")
    if first is not None and model is not None:
        raise click.UsageError(f"Two models are named: {first!r} and {model!r}.")
    if first is None and model is None and any(word.partition("=")[0] == "--config" for word in flags):
        raise click.UsageError("Beside --config, name MODEL, --host and --port here.")
    return first or model, flags


def _embedded(flags: list[str]) -> tuple[str, list[str]]:
    from agent.catalogue.embedded import embedded_model
    from agent.catalogue.progress import progress_bar

    with progress_bar() as progress:
        directory = str(embedded_model(progress=progress))
    # Its weights are exact in float32 alone.
    exact = [] if any(word.startswith("--dtype") for word in flags) else ["--dtype", "float32"]
    return directory, [*exact, *flags]


def _keys(given: tuple[str, ...], file: Path | None, settings: Settings) -> tuple[str, ...]:
    """The keys from flags, else from the file, else from the environment or the settings."""
    import os

    from agent.serving.keys import read_key_file, readable_by_others

    key = os.environ.get("VLLM_API_KEY") or settings.api_key
    used = given or (() if file is not None or not key else (key,))
    for each in used:
        # Most often from a variable that is not set: lost on its way, it would leave the server open.
        if not each.strip() or each.splitlines() != [each]:
            raise click.UsageError("An API key is empty, or is not one line.")
    if given:
        hidden = "" if _hidden(given) else " and in the list of processes"
        warn(f"the key stands in your shell's history{hidden}: VLLM_API_KEY or --api-key-file keep it out")
        return given
    if file is not None:
        path = file.expanduser()
        keys = read_key_file(path)
        if readable_by_others(path):
            warn(f"other users of this machine can read {path}: chmod 600 {path}")
        return keys
    return used


def _hidden(keys: tuple[str, ...]) -> bool:
    from agent.serving.keys import hide

    return hide(keys)


def _check_installed() -> None:
    from agent.errors import MissingExtraError
    from agent.serving.flags import vllm_version

    if not vllm_version():
        raise MissingExtraError(
            "vLLM is not installed; install it with `pip install 'vllm-agent[cpu]'`, or 'vllm-agent[gpu]' on "
            "a machine with an NVIDIA card"
        )


def _shown_name(record: ServerRecord) -> str:
    path = Path(record.model)
    return path.name if path.is_dir() else record.model


def _default_port() -> int:
    from agent.serving.order import DEFAULT_PORT

    return DEFAULT_PORT


def _tell(record: ServerRecord, directory: ServerDirectory, *, seconds: float, background: bool) -> None:
    from agent.serving.warm import facts

    info = facts(record, directory)
    parts = [_shown_name(record), f"ready in {seconds:.0f} s"]
    if info is not None:
        parts.insert(1, info.version)
        if info.max_model_len:
            parts.append(f"{info.max_model_len:,} tokens")
        parts.append(f"calls by {info.tool_parser}" if info.tool_parser else "calls as text")
        if info.tool_problem:
            warn(f"the model's own tool format is not used: {info.tool_problem}")
    parts.append("key needed" if record.keys else "no key needed")
    note(" · ".join(parts))
    end = f"vllm-agent serve stop {record.id}" if background else "Ctrl-C stops it"
    note(f"log: {directory.log(record.id)} · {end}")
