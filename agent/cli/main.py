"""The command ``vllm-agent``: nouns and verbs, exit codes, and what becomes of errors.

Importing this module imports no LangChain, SQLAlchemy, rich or vLLM: every command fetches what it needs when
it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click

from agent import __version__
from agent.cli.ask import resume, run
from agent.cli.batch import batch
from agent.cli.chat import chat
from agent.cli.console import tell_error
from agent.cli.debugging import read_by_programs, show_logs
from agent.cli.demo import demo
from agent.cli.doctor import doctor
from agent.cli.graph import graph
from agent.cli.models import models
from agent.cli.serve import serve
from agent.cli.threads import threads
from agent.cli.tools import tools
from agent.cli.ui import ui
from agent.errors import AgentError
from agent.serving.keys import hide, keys_in
from tools.errors import ToolError

INTERRUPTED = 130
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
TERMINATED = 128 + signal.SIGTERM


def _drop_output() -> None:
    """Forget what stdout still holds and cannot write: Python would try again at its end, and fail aloud."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # a stdout without a file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Failure(click.ClickException):
    """An error of ours, as one line."""

    def show(self, file: Any = None) -> None:
        tell_error(self.message)


class _Program(click.Group):
    """Turns errors of ours into lines and exit codes, for every command alike."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order in which a newcomer needs them

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (AgentError, ToolError) as error:
            if ctx.params["debug"]:
                raise
            raise _Failure(str(error)) from error
        except OSError as error:
            if error.errno not in _NO_ROOM or ctx.params["debug"]:
                raise
            _drop_output()
            what = error.filename or "what is printed or stored"
            raise _Failure(f"{what} cannot be written: {error.strerror}") from error
        except click.ClickException as error:
            if not read_by_programs():
                raise
            tell_error(error.format_message())
            raise click.exceptions.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


@click.group(
    cls=_Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from flags, else from VLLM_AGENT_… variables, else from config.toml in your "
    "configuration directory. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
)
@click.option("--debug", is_flag=True, help="Show exact prompts and requests on stderr, and tracebacks.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    help="Log runs, model calls and tool calls on stderr, for people or for programs.",
)
@click.version_option(__version__, prog_name="vllm-agent")
@click.pass_context
def cli(context: click.Context, debug: bool, log_format: str | None) -> None:
    """LangGraph agents on vLLM that run from the first command and never lose a conversation.

    \b
    Start here:
      vllm-agent demo                       watch an agent call tools, stop, and resume
      vllm-agent run "What is 15 * 23?"     one question, one answer
      vllm-agent chat                       a conversation in the terminal
      vllm-agent doctor                     what is wrong here, and how to mend it
    """
    if os.environ.get("NO_COLOR"):
        context.color = False
    if debug or log_format:
        show_logs(debug=debug, log_format=log_format)


for command in (demo, chat, ui, run, resume, batch, threads, tools, graph, models, serve, doctor):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command and end the process with its exit code."""
    hide(keys_in(sys.argv))  # before anything slow: a key in a command line is for nobody else
    signal.signal(signal.SIGTERM, _terminate)
    try:
        cli.main(prog_name="vllm-agent")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        if code in (INTERRUPTED, TERMINATED):
            # The engine lives in this process and ends with it. Ending it in good order would wait for a
            # model that is half loaded, and for a tool that does not return.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        raise
    raise AssertionError("click ends every command with SystemExit")


def _terminate(signum: int, frame: FrameType | None) -> None:
    sys.exit(TERMINATED)
