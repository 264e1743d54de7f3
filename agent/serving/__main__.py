"""``python -m agent.serving``: the process that becomes vLLM's server. Started by this package only.

It ties itself to whoever started it where that is wanted, and says in its last line of output why it ended,
as an error of ours. vLLM is imported late, so that both hold from the first moment.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from agent.engines.failures import plain_message
from agent.engines.memory import large_import
from agent.errors import AgentError
from agent.serving.command import KEYS
from agent.serving.output import failure_line, stage_line
from agent.serving.watch import finish_requests

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the server that the arguments describe."""
    parser = argparse.ArgumentParser(prog="python -m agent.serving", description=__doc__)
    parser.add_argument("--parent", type=int, help="end when this process, which started it, ends")
    parser.add_argument("--one-process", action="store_true", help="run the engine core on a thread")
    parser.add_argument(
        "--text-tools", action="store_true", help="read calls in text where the model has none"
    )
    parser.add_argument("--facts", type=Path, required=True, help="where to write what the server is")
    parser.add_argument("--flags", type=Path, required=True, help="where to write vLLM's flags")
    parser.add_argument("--wanted", type=json.loads, default={}, help="parsers, as JSON")
    parser.add_argument("vllm", nargs=argparse.REMAINDER, help="-- and the flags of vllm serve")
    options = parser.parse_args(arguments)
    keys = os.environ.pop(KEYS, "").splitlines()
    if options.parent is not None:
        _end_with(options.parent)
    code = _serve(options, keys)
    sys.stdout.flush()
    sys.stderr.flush()
    # Exit hooks of torch and of a core that is half loaded have nothing to save, and may wait for ever.
    os._exit(code)


def _serve(options: argparse.Namespace, keys: list[str]) -> int:
    arguments = options.vllm[1:]
    try:
        _say(stage_line("importing"))
        with large_import():
            from agent.engines.inprocess import http
        _write_flags(options.flags, http.known_flags())
        http.serve(
            arguments,
            wanted=options.wanted,
            keys=keys,
            in_one_process=options.one_process,
            text_tools=options.text_tools,
            facts=options.facts,
            on_stage=lambda stage: _say(stage_line(stage)),
            finish_requests=finish_requests,
        )
    except AgentError as error:
        _say(failure_line(type(error).__name__, str(error)))
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGTERM
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except Exception as error:  # the last word of a server that did not start, or died
        import traceback

        traceback.print_exc()
        _say(failure_line("EngineStartError", plain_message(error)))
        return 1
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _end_with(parent: int) -> None:
    """Ask the kernel of Linux for SIGTERM when the parent ends, however that happens."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def _write_flags(path: Path, flags: object) -> None:
    with suppress(OSError):  # a cache only
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(flags), encoding="utf-8")
        part.replace(path)


if __name__ == "__main__":
    main()
