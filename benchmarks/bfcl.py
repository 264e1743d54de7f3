"""How well a model calls tools through ``ChatVLLM``, on items of the Berkeley Function-Calling Leaderboard.

Each item is one question with the tools that go with it. The same bound model answers all of them, in two
modes: ``required`` (a call must be made) and ``auto`` (the model decides). Items of ``irrelevance`` have no
tool that fits, so the right decision there is to answer in text; ``auto`` is therefore judged by the mean of
«called» where a tool fits and «not called» where none does, of which a coin reaches 50 %.

Run it from the repository::

    python benchmarks/bfcl.py                        # the embedded model, 100 items of each category
    python benchmarks/bfcl.py --who ours,peer        # and ChatOpenAI on vLLM's server, with the same items
    python benchmarks/bfcl.py --limit 20 --modes auto --categories simple_python,irrelevance --json
    python benchmarks/bfcl.py --base-url http://localhost:8000/v1 --model NAME
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bfcl_data import BfclItem, Check, fetch_wheel, load_checker, load_items
from bfcl_peer import PARSERS, open_peer
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from agent import ChatVLLM
from agent.catalogue.embedded import embedded_model

MODES = ("required", "auto")
CATEGORIES = ("simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance")
STDERR = Console(stderr=True)


@dataclass(frozen=True)
class Outcome:
    """What the model did with one item."""

    id: str
    """The item."""
    calls: list[dict[str, Any]]
    """Name and arguments of every call."""
    text: str
    """Text beside or instead of the calls."""
    error: str | None
    """Why it is wrong; None if it is right."""
    output_tokens: int
    """Tokens generated for it."""

    @property
    def called(self) -> bool:
        """Whether there was any call, a malformed one included."""
        return bool(self.calls) or self.error == "malformed call"


@dataclass(frozen=True)
class Score:
    """The figures of one category in one mode; shares are fractions of 1."""

    who: str
    """``"ours"`` or ``"peer"``."""
    mode: str
    category: str
    items: int
    relevant: bool
    """Whether a call is the right answer in this category."""
    called: float
    correct: float
    """Fully correct items: the right call where one is expected, no call where none is."""
    correct_of_called: float | None
    """Correct calls among the calls made; None where no call is right, or none was made."""
    output_tokens: int
    seconds: float
    """Wall-clock time from the first request to the last answer."""

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens over wall-clock time, prompts included in the time."""
        return self.output_tokens / self.seconds


def summarize(
    who: str, mode: str, items: Sequence[BfclItem], outcomes: Sequence[Outcome], seconds: float
) -> Score:
    """Reduce the outcomes of one category in one mode to its figures."""
    relevant = items[0].answer is not None
    called = sum(outcome.called for outcome in outcomes)
    correct = sum(outcome.error is None for outcome in outcomes)
    return Score(
        who=who,
        mode=mode,
        category=items[0].category,
        items=len(items),
        relevant=relevant,
        called=called / len(items),
        correct=correct / len(items),
        correct_of_called=correct / called if relevant and called else None,
        output_tokens=sum(outcome.output_tokens for outcome in outcomes),
        seconds=seconds,
    )


def as_python(value: Any, schema: Any) -> Any:
    """Give numbers the type that the schema asks for: JSON has one, Python and the checker two."""
    if not isinstance(schema, Mapping):
        return value
    if isinstance(value, list):
        return [as_python(item, schema.get("items")) for item in value]
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        return {name: as_python(item, properties.get(name)) for name, item in value.items()}
    if schema.get("type") == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def judge(item: BfclItem, message: AIMessage, check: Check) -> Outcome:
    """Score one answer."""
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in item.tools}
    calls = [
        {"name": call["name"], "args": as_python(call["args"], schemas.get(call["name"], {}))}
        for call in message.tool_calls
    ]
    error = "malformed call" if message.invalid_tool_calls else check(item, calls)
    usage = message.usage_metadata
    return Outcome(item.id, calls, str(message.text), error, usage["output_tokens"] if usage else 0)


async def run_category(
    model: BaseChatModel,
    items: Sequence[BfclItem],
    mode: str,
    check: Check,
    progress: Progress,
    concurrency: int,
    single: bool,
) -> tuple[list[Outcome], float]:
    """Ask all items of one category at once (the engine batches them) and score the answers."""
    task = progress.add_task(f"{items[0].category} · {mode}", total=len(items))
    gate = asyncio.Semaphore(concurrency)

    async def ask(item: BfclItem) -> Outcome:
        async with gate:
            once = {"parallel_tool_calls": False} if single else {}
            bound = model.bind_tools(item.tools, tool_choice=mode, **once)
            message = await bound.ainvoke(item.messages)
        progress.advance(task)
        return judge(item, message, check)

    started = time.perf_counter()
    outcomes = await asyncio.gather(*map(ask, items))
    return list(outcomes), time.perf_counter() - started


def mean_decision(scores: Sequence[Score], who: str, mode: str = "auto") -> float | None:
    """Mean of «called» where a tool fits and «not called» where none does; None without both kinds."""
    mine = [score for score in scores if (score.who, score.mode) == (who, mode)]
    relevant = [score.called for score in mine if score.relevant]
    irrelevant = [1 - score.called for score in mine if not score.relevant]
    if not relevant or not irrelevant:
        return None
    return (sum(relevant) / len(relevant) + sum(irrelevant) / len(irrelevant)) / 2


def render(scores: Sequence[Score]) -> Table:
    """Draw the figures."""
    table = Table(caption=_caption(scores), box=SIMPLE)  # narrow enough for 80 columns
    for column in ("mode", "category", "who", "called", "correct", "correct of called", "tok/s", "wall"):
        left = column in ("mode", "category", "who")
        table.add_column(column, justify="left" if left else "right", no_wrap=left)
    for score in sorted(scores, key=lambda score: MODES.index(score.mode)):  # both of a kind together
        table.add_row(
            score.mode,
            score.category,
            score.who,
            f"{score.called:.0%}",
            f"{score.correct:.0%}",
            "-" if score.correct_of_called is None else f"{score.correct_of_called:.0%}",
            f"{score.tokens_per_second:.0f}",
            f"{score.seconds:.0f} s",
        )
    return table


def _caption(scores: Sequence[Score]) -> str:
    lines = [f"{scores[0].items} items of each category"] if scores else []
    for who in ("ours", "peer"):
        if (mean := mean_decision(scores, who)) is not None:
            lines.append(f"{who}: auto, mean of called where a tool fits and not called elsewhere {mean:.1%}")
    return "\n".join(lines)


@contextmanager
def open_models(arguments: argparse.Namespace, who: str) -> Iterator[BaseChatModel]:
    """Give the model to measure; its engine runs while the block does."""
    if who == "peer":
        where = Path(arguments.model or embedded_model())
        with open_peer(where, max_tokens=arguments.max_tokens, parser=arguments.peer_parser) as peer:
            yield peer
        return
    named = {key: getattr(arguments, key) for key in ("model", "base_url") if getattr(arguments, key)}
    with ChatVLLM(**named, temperature=0.0, max_tokens=arguments.max_tokens) as model:
        yield model


async def measure(
    model: BaseChatModel,
    who: str,
    categories: Sequence[Sequence[BfclItem]],
    check: Check,
    arguments: argparse.Namespace,
) -> tuple[list[Score], list[dict[str, Any]]]:
    """Run every category in every mode on one model; return the figures and every outcome."""
    scores: list[Score] = []
    rows: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=STDERR) as progress:
        await model.ainvoke("Hello!")  # the engine starts outside the measured time
        for mode in arguments.modes:
            for items in categories:
                if mode == "required" and items[0].answer is None:
                    continue  # a call is forced, and none is right: nothing to measure
                outcomes, seconds = await run_category(
                    model, items, mode, check, progress, arguments.concurrency, arguments.single
                )
                score = summarize(who, mode, items, outcomes, seconds)
                scores.append(score)
                right = f"called {score.called:.0%}, correct {score.correct:.0%}"
                progress.console.print(f"{who} · {mode} · {score.category}: {right}")  # runs are long
                where = {"who": who, "mode": mode, "category": items[0].category}
                rows += [{**where, **asdict(outcome)} for outcome in outcomes]
    return scores, rows


def run(arguments: argparse.Namespace) -> tuple[list[Score], list[dict[str, Any]]]:
    """Measure our model, and then the peer where it is asked for: never both engines at once."""
    wheel = fetch_wheel()
    check = load_checker(wheel)
    categories = [load_items(wheel, name, arguments.limit, arguments.skip) for name in arguments.categories]
    scores: list[Score] = []
    rows: list[dict[str, Any]] = []
    for who in arguments.who:
        with open_models(arguments, who) as model:
            figures, outcomes = asyncio.run(measure(model, who, categories, check, arguments))
        scores += figures
        rows += outcomes
    return scores, rows


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""

    def names(value: str) -> list[str]:
        return [name.strip() for name in value.split(",") if name.strip()]

    parser = argparse.ArgumentParser(
        description="Tool calling of ChatVLLM on the Berkeley Function-Calling Leaderboard."
    )
    parser.add_argument("--limit", type=int, default=100, help="items per category (100)")
    parser.add_argument("--skip", type=int, default=0, help="items of each category to leave out first (0)")
    parser.add_argument("--categories", type=names, default=list(CATEGORIES), metavar="A,B")
    parser.add_argument("--modes", type=names, default=list(MODES), metavar="A,B", help="required,auto")
    parser.add_argument("--model", help="hub id, directory or served name; default: the embedded model")
    parser.add_argument("--base-url", help="a running server, instead of an engine in this process")
    parser.add_argument(
        "--who", type=names, default=["ours"], metavar="A,B", help="ours,peer: ChatOpenAI on vLLM's server"
    )
    parser.add_argument(
        "--peer-parser", choices=PARSERS, default="hermes", help="the server's tool parser (hermes)"
    )
    parser.add_argument("--single", action="store_true", help="ask with parallel_tool_calls=False")
    parser.add_argument("--max-tokens", type=int, default=256, help="longest answer (256)")
    parser.add_argument("--concurrency", type=int, default=64, help="requests in flight (64)")
    parser.add_argument("--json", action="store_true", help="print figures and every outcome as JSON")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.modes) - set(MODES):
        parser.error(f"unknown mode {', '.join(sorted(unknown))}: choose from {', '.join(MODES)}")
    if unknown := set(arguments.who) - {"ours", "peer"}:
        parser.error(f"unknown --who {', '.join(sorted(unknown))}: choose from ours, peer")
    if "peer" in arguments.who and arguments.base_url:
        parser.error("the peer starts a server of its own: leave out --base-url")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its figures on stdout."""
    arguments = parse_arguments(argv)
    scores, rows = run(arguments)
    if arguments.json:
        figures = [asdict(score) | {"tokens_per_second": score.tokens_per_second} for score in scores]
        means = {who: mean_decision(scores, who) for who in arguments.who}
        print(json.dumps({"scores": figures, "mean_decision": means, "outcomes": rows}, indent=2))
    else:
        Console().print(render(scores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
