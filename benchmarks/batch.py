"""``vllm-agent batch`` in one process beside plain ``vllm.LLM.generate`` on the prompts that it sent.

    python -m benchmarks.batch                      # 64 lines, three rounds
    python -m benchmarks.batch --lines 16 --rounds 1 --json

The command runs a file of questions, once with a calculator and once without tools, each line a conversation
in a SQLite file, every step durable. Each request that reaches vLLM is noted: the ids of its tokens and its
sampling parameters, grammars included. Then ``vllm.LLM.generate`` gets exactly those, all in one call, in a
process of its own with the same engine arguments. The figure is the tokens generated per second, over those
of ``generate`` (target: at least 0.9).

``generate`` has it easier than any agent could: it has every prompt at once, where an agent knows the second
one only when the first is answered and its tool has run. Nothing is taken out of our time for the tools; a
calculator takes none to speak of.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from agent.catalogue.embedded import embedded_model
from benchmarks import plot
from benchmarks.engine_roles import COMMON

ENGINE: dict[str, Any] = {**COMMON, "max_num_seqs": 64, "max_num_batched_tokens": 2048}
"""Engine arguments of both; the last two have other defaults in ``vllm.LLM`` than elsewhere."""
KINDS = {"with a calculator": ["calculator"], "without tools": []}
TARGET = 0.9


def ours(folder: Path, tokens: int) -> None:
    """The command, once for every line of stdin that names a file of tasks."""
    from agent import ChatVLLM

    arguments = {name: value for name, value in ENGINE.items() if name not in ("max_model_len", "dtype")}
    model = ChatVLLM(
        model=str(embedded_model()),
        dtype=ENGINE["dtype"],
        max_model_len=ENGINE["max_model_len"],
        vllm_kwargs=arguments,
    )
    with model:  # holds the engine between two commands, which would start one each
        model.start()
        for line in ready():
            print(json.dumps(run_batch(Path(line), folder, tokens)), flush=True)


def run_batch(tasks: Path, folder: Path, tokens: int, *, own_engine: bool = False) -> dict[str, Any]:
    """One run of ``vllm-agent batch`` in this process.

    Args:
        tasks: The file of questions.
        folder: Where the conversations go, and what was sent, beside the answers.
        tokens: Longest answer.
        own_engine: With the embedded model as users have it, in the place of the engine arguments here.
    """
    from click.testing import CliRunner

    from agent.cli.main import cli

    os.environ["VLLM_AGENT_HOME"] = str(folder / "home")
    command = ["batch", str(tasks), str(tasks.with_suffix(".out")), "--json", "--max-tokens", str(tokens)]
    if not own_engine:
        command += ["--model", str(embedded_model()), "--temperature", "0"]
        for name, value in ENGINE.items():
            command += ["--vllm-arg", f"{name}={json.dumps(value) if value is True else value}"]
    with recorded() as sent:
        done = CliRunner().invoke(cli, command)
    if done.exit_code:
        raise SystemExit(f"batch failed:\n{done.output}\n{done.exception}")
    seconds = json.loads(done.stdout)["seconds"]
    tasks.with_suffix(".sent").write_bytes(pickle.dumps([each["request"] for each in sent]))
    return {"seconds": seconds, "requests": len(sent), "tokens": sum(each["tokens"] for each in sent)}


@contextmanager
def recorded() -> Iterator[list[dict[str, Any]]]:
    """Note what reaches vLLM's engine in this process: prompts, parameters, and how much came back."""
    from vllm.v1.engine.async_llm import AsyncLLM

    sent: list[dict[str, Any]] = []
    plain = AsyncLLM.generate

    async def generate(self: Any, prompt: Any, params: Any, request_id: str, **rest: Any) -> Any:
        ids = list(prompt["prompt_token_ids"])
        noted: dict[str, Any] = {"request": (ids, copy.deepcopy(params)), "tokens": 0}
        sent.append(noted)
        lengths: dict[int, int] = {}
        cumulative = params.output_kind.name != "DELTA"
        async for output in plain(self, prompt, params, request_id, **rest):
            for one in output.outputs:
                before = 0 if cumulative else lengths.get(one.index, 0)
                lengths[one.index] = before + len(one.token_ids)
            noted["tokens"] = sum(lengths.values())
            yield output

    AsyncLLM.generate = generate
    try:
        yield sent
    finally:
        AsyncLLM.generate = plain


def plain() -> None:
    """``vllm.LLM.generate``, once for every line of stdin that names a file of tasks."""
    from agent.engines.local import ENVIRONMENT

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm import LLM, SamplingParams

    llm = LLM(model=str(embedded_model()), **ENGINE)
    llm.generate("Hello!", SamplingParams(max_tokens=1), use_tqdm=False)
    for line in ready():
        requests = pickle.loads(Path(line).with_suffix(".sent").read_bytes())
        print(json.dumps(replay(llm, requests)), flush=True)


def replay(llm: Any, requests: list[tuple[list[int], Any]]) -> dict[str, Any]:
    """Give ``vllm.LLM`` all that was sent."""
    from vllm.sampling_params import RequestOutputKind

    for _, params in requests:
        params.output_kind = RequestOutputKind.FINAL_ONLY
    prompts = [{"prompt_token_ids": ids} for ids, _ in requests]
    started = time.perf_counter()
    outputs = llm.generate(prompts, [params for _, params in requests], use_tqdm=False)
    seconds = time.perf_counter() - started
    tokens = sum(len(one.token_ids) for output in outputs for one in output.outputs)
    return {"seconds": seconds, "requests": len(outputs), "tokens": tokens}


def ready() -> Iterator[str]:
    """Say that the engine is up, and give the lines of stdin."""
    print("ready", flush=True)
    for line in sys.stdin:
        yield line.strip()


class Child:
    """A process of one role, which does what it is told with each line."""

    def __init__(self, role: str, folder: Path, tokens: int, stack: ExitStack) -> None:
        command = [sys.executable, "-m", "benchmarks.batch", "--role", role]
        command += ["--folder", str(folder), "--tokens", str(tokens)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
        )
        stack.enter_context(self._process)
        stack.callback(self._process.communicate)  # which closes its stdin: it ends

    def tell(self, line: str | None) -> str:
        """Give it a line, if there is one, and wait for what it says."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if line is not None:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        said = self._process.stdout.readline()
        if not said:
            raise SystemExit("a process of the benchmark has ended; what it said is above")
        return said


def write_tasks(path: Path, *, lines: int, first: int, tools: list[str]) -> None:
    """Questions that no other file has."""
    tasks = [{"question": f"What is {first + n} * {7 + n % 13}?", "tools": tools} for n in range(lines)]
    path.write_text("".join(f"{json.dumps(task)}\n" for task in tasks))


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Both kinds of batch, ours and then what it sent, in every round."""
    rounds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    with ExitStack() as stack:
        children = [Child(role, folder, options.tokens, stack) for role in ("ours", "plain")]
        for child in children:
            child.tell(None)
        for number in range(options.rounds):
            for place, (kind, tools) in enumerate(KINDS.items()):
                path = folder / f"{number}-{place}.jsonl"
                first = 100 + (number * len(KINDS) + place) * options.lines
                write_tasks(path, lines=options.lines, first=first, tools=tools)
                own, peer = (json.loads(child.tell(str(path))) for child in children)
                rounds[kind].append({"ours": own, "plain": peer})
                print(f"round {number + 1}, {kind}: {rounds[kind][-1]}", file=sys.stderr, flush=True)
    return [row(kind, done) for kind, done in rounds.items()]


def row(kind: str, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of the table: medians, and the median of the rounds' ratios."""
    rates = {
        who: [each[who]["tokens"] / each[who]["seconds"] for each in rounds] for who in ("ours", "plain")
    }
    ratios = [a / b for a, b in zip(rates["ours"], rates["plain"], strict=True)]
    return {
        "figure": f"tokens per second of a batch {kind} / vllm.LLM.generate",
        "ours": round(statistics.median(rates["ours"]), 1),
        "peer": round(statistics.median(rates["plain"]), 1),
        "ratio": round(statistics.median(ratios), 3),
        "rounds": [round(ratio, 3) for ratio in ratios],
        "requests": [each["ours"]["requests"] for each in rounds],
        "tokens": [[each[who]["tokens"] for who in ("ours", "plain")] for each in rounds],
        "target": TARGET,
        "better": "more",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lines", type=int, default=64, help="questions in a batch (64)")
    parser.add_argument("--tokens", type=int, default=48, help="longest answer (48)")
    parser.add_argument("--rounds", type=int, default=3, help="how often all is measured (3)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    plot.add_option(parser)
    parser.add_argument("--role", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "ours":
        ours(options.folder, options.tokens)
    elif options.role == "plain":
        plain()
    else:
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(options, Path(folder))
        plot.save(options.plot, "A batch, over vllm.LLM.generate", rows)
        if options.json:
            print(json.dumps(rows))
            return
        for one in rows:
            print(
                f"{one['figure']:68} ours {one['ours']:.1f}, generate {one['peer']:.1f}, ratio "
                f"{one['ratio']:.2f} (target at least {TARGET}; rounds {one['rounds']})"
            )


if __name__ == "__main__":
    main()
