"""Whole conversations with tools, many at once: our agent beside LangChain's, in one run, as ratios.

    python -m benchmarks.agents                    # 16 conversations of 3 turns, three rounds of everybody
    python -m benchmarks.agents --choice auto      # each agent decides by itself whether to call
    python -m benchmarks.agents --roles in-process peer --rounds 1 --json

* ``peer``: ``create_agent`` with ``ChatOpenAI`` on ``vllm serve``, which is told all that it can be told so
  that this model calls tools (``bfcl_peer.py``).
* ``in-process``: ``build_react_graph`` with ``ChatVLLM`` in this process, with that template and parser.
* ``served``: the same with the address of a ``vllm-agent serve`` that has that template and parser.
* ``same-server``: the same with the address of the peer's own server, so that only the client differs.
* ``text``: in this process, as ``ChatVLLM()`` gives it to users of the embedded model: with the text
  protocol, which writes each call twice and takes the likelier one, as it does for small models only.

All have the same weights, engine arguments, questions, tools and kind of checkpointer, and temperature 0, and
all but ``text`` the same prompts. Small models do very different things under different protocols, and this
one never calls a tool by itself under the peer's.
So with ``--choice required`` (the default) everybody does the same work, whatever the model would like: in
each turn the first answer must be a call, the second one may not be, and is of a given length. How many calls
and tokens each did make is printed beside the ratios.

Engines and servers are all up from the beginning, and one of them works at a time, in turns. Each agent has
questions of its own in each round, so that nothing but its own conversation is in a prefix cache, also where
two agents share a server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from agent import ChatVLLM
from agent.catalogue.embedded import embedded_model
from benchmarks import plot
from benchmarks.bfcl_peer import tool_arguments
from benchmarks.engine_roles import COMMON
from benchmarks.server import KEY, NAME, Server, open_server
from graphs import build_react_graph

ROLES = ("peer", "in-process", "served", "same-server", "text")
PARSER = "hermes"
"""Of vLLM's tool formats, one that most models of this kind were trained on."""
CALL_TOKENS = 64
"""The longest call."""
TARGETS = {"in-process": 1.2, "served": 1.0, "same-server": 1.0, "text": 1.2}
"""Conversations per minute, over the peer's."""


@tool
def multiply(a: int, b: int) -> str:
    """Multiply two whole numbers.

    Args:
        a: The first number.
        b: The second number.
    """
    return f"{a} * {b} = {a * b}"


@tool
def weather(city: str) -> str:
    """Say what the weather is like in a city.

    Args:
        city: The name of the city.
    """
    return f"In {city} it is sunny, 21 degrees."


class Scheduled:
    """Put before a chat model's class: it makes a call in answer to a question, and none to a result.

    Of the answers without a call each has the same number of tokens, so that two agents say equally much.
    """

    def _ordered(self, messages: Sequence[BaseMessage], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        order: dict[str, Any] = self.metadata["order"]  # type: ignore[attr-defined]  # a chat model has it
        return {**kwargs, **order["call" if messages[-1].type == "human" else "answer"]}

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        ordered = self._ordered(messages, kwargs)
        async for chunk in super()._astream(messages, *args, **ordered):  # type: ignore[misc]
            yield chunk


class ScheduledVLLM(Scheduled, ChatVLLM):
    """Ours, with an order for each call."""


class ScheduledOpenAI(Scheduled, ChatOpenAI):
    """The peer, with the same order."""


def order(choice: str, tokens: int, *, peer: bool) -> dict[str, dict[str, Any]]:
    """What a model is asked for with each call.

    Args:
        choice: ``"required"`` or ``"auto"``.
        tokens: Tokens in an answer without calls; at most so many with ``"auto"``.
        peer: Whether it is for ``ChatOpenAI``, which has other names for the same things.
    """
    limit = "max_completion_tokens" if peer else "max_tokens"
    if choice == "auto":
        either = {limit: max(tokens, CALL_TOKENS)}
        return {"call": either, "answer": either}
    exactly = {"extra_body": {"ignore_eos": True}} if peer else {"ignore_eos": True}
    return {
        "call": {"tool_choice": "required", "parallel_tool_calls": False, limit: CALL_TOKENS},
        "answer": {"tool_choice": "none", limit: tokens, **exactly},
    }


def our_agent(choice: str, tokens: int, stack: ExitStack, **where: Any) -> Any:
    """Our graph; ``where`` says where its model runs, and ``stack`` closes it."""
    plan = {"order": order(choice, tokens, peer=False)}
    model = stack.enter_context(ScheduledVLLM(temperature=0.0, metadata=plan, **where))
    print(f"{model.protocol} protocol on {model.start().version}", file=sys.stderr, flush=True)
    return build_react_graph(model=model, tools=[multiply, weather], checkpointer=InMemorySaver())


def peer_agent(
    choice: str, tokens: int, stack: ExitStack, *, base_url: str, name: str = NAME, key: str = KEY
) -> Any:
    """LangChain's agent on a server; it has nothing to close."""
    del stack
    model: Any = ScheduledOpenAI(
        model=name,
        base_url=base_url,
        api_key=key,  # type: ignore[arg-type]  # pydantic makes a secret of it
        temperature=0.0,
        timeout=600,
        stream_usage=True,
        metadata={"order": order(choice, tokens, peer=True)},
    )
    return create_agent(model, [multiply, weather], checkpointer=InMemorySaver())


@dataclass
class Round:
    """What one agent did in one round."""

    seconds: float = 0.0
    processor: float = 0.0
    """Seconds of processor time, of this process and of all servers."""
    conversations: int = 0
    calls: int = 0
    """Tools that ran."""
    model_calls: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    """Generated, as the messages say."""
    unanswered: int = 0
    """Turns that ended without a text."""
    first: list[float] = field(default_factory=list)
    """Seconds from each question to the first chunk of any kind."""
    answer: list[float] = field(default_factory=list)
    """Seconds from each question to the first text after the tools' results, or instead of calls."""

    @property
    def per_minute(self) -> float:
        return 60 * self.conversations / self.seconds


def question(number: int) -> str:
    """One of ten thousand; every third is about the weather."""
    if number % 3 == 2:
        return f"What is the weather like in {('Paris', 'Rome', 'Oslo', 'Lima')[number % 4]} on day {number}?"
    return f"What is {number} * {7 + number % 13}?"


async def turn(agent: Any, text: str, config: Any, found: Round) -> None:
    started = time.perf_counter()
    first = answer = None
    async for chunk, _ in agent.astream({"messages": [("user", text)]}, config, stream_mode="messages"):
        if chunk.type not in ("ai", "AIMessageChunk"):
            answer = None  # a result: what was said before it was beside a call
            continue
        now = time.perf_counter() - started
        if first is None and (chunk.text or getattr(chunk, "tool_call_chunks", None) or chunk.tool_calls):
            first = now
        if answer is None and chunk.text:
            answer = now
    if first is not None:
        found.first.append(first)
    if answer is not None:
        found.answer.append(answer)


async def conversation(agent: Any, thread: str, questions: Sequence[str], found: Round) -> None:
    config: Any = {"configurable": {"thread_id": thread}}
    for text in questions:
        await turn(agent, text, config, found)
    state = await agent.aget_state(config)
    messages: list[BaseMessage] = state.values["messages"]
    found.calls += sum(message.type == "tool" for message in messages)
    for message in messages:
        if isinstance(message, AIMessage):
            found.model_calls += 1
            usage = message.usage_metadata
            assert usage is not None, "an answer without a count of its tokens"
            found.tokens += usage["output_tokens"]
            found.prompt_tokens += usage["input_tokens"]
    ends = [a for a, b in zip(messages, [*messages[1:], None], strict=True) if b is None or b.type == "human"]
    found.unanswered += sum(not (isinstance(end, AIMessage) and end.text.strip()) for end in ends)
    found.conversations += 1


async def run_round(agent: Any, number: int, *, conversations: int, turns: int) -> Round:
    """All conversations at once, with questions that no round of another number has."""
    found = Round()
    base = 100 + number * conversations * turns
    started, before = time.perf_counter(), processor_seconds()
    async with asyncio.TaskGroup() as group:
        for index in range(conversations):
            texts = [question(base + index * turns + each) for each in range(turns)]
            group.create_task(conversation(agent, f"{number}-{index}", texts, found))
    found.seconds = time.perf_counter() - started
    found.processor = processor_seconds() - before
    return found


def processor_seconds() -> float:
    """What this process and all that it started have used; an idle server uses next to nothing."""
    own = psutil.Process()
    used = [each.cpu_times() for each in (own, *own.children(recursive=True))]
    return sum(times.user + times.system for times in used)


async def measure(agents: Mapping[str, Any], options: argparse.Namespace) -> dict[str, list[Round]]:
    """Everybody in turns, after a round that does not count."""
    rounds: dict[str, list[Round]] = {role: [] for role in agents}
    for agent in agents.values():
        await run_round(agent, 0, conversations=1, turns=1)
    for number in range(1, options.rounds + 1):
        for role in list(agents) if number % 2 else list(agents)[::-1]:
            own = number * len(ROLES) + ROLES.index(role)  # of which its questions are
            done = await run_round(
                agents[role], own, conversations=options.conversations, turns=options.turns
            )
            rounds[role].append(done)
            print(
                f"round {number}, {role}: {done.per_minute:.1f} a minute, {done.calls} calls, "
                f"{done.tokens} tokens, first {p95(done.first):.2f} s",
                file=sys.stderr,
                flush=True,
            )
    return rounds


def p95(values: Sequence[float]) -> float:
    """The 95th percentile, in seconds; infinite where nothing came."""
    return statistics.quantiles(values, n=20)[-1] if len(values) > 1 else (values or [float("inf")])[0]


def ratios(rounds: Mapping[str, list[Round]]) -> list[dict[str, Any]]:
    """Every role over the peer, round by round; the median counts."""
    rows = []
    for role in (role for role in rounds if role != "peer"):
        pairs = list(zip(rounds[role], rounds["peer"], strict=True))
        figures = {
            "conversations per minute": [a.per_minute / b.per_minute for a, b in pairs],
            "processor time per conversation": [a.processor / b.processor for a, b in pairs],
            "p95 time to first token": [p95(a.first) / p95(b.first) for a, b in pairs],
            "p95 time to first token of the answer": [p95(a.answer) / p95(b.answer) for a, b in pairs],
        }
        for name, values in figures.items():
            more = name.startswith("conversations")
            rows.append(
                {
                    "figure": f"{name}, {role}",
                    "ratio": round(statistics.median(values), 3),
                    "rounds": [round(value, 3) for value in values],
                    "better": "more" if more else "less",
                    **({} if name.startswith("processor") else {"target": TARGETS[role] if more else 1.0}),
                }
            )
    return rows


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """The medians of an agent's rounds."""
    names = ("calls", "model_calls", "prompt_tokens", "tokens", "unanswered", "per_minute", "processor")
    middle = {name: statistics.median(getattr(each, name) for each in rounds) for name in names}
    middle["first_p95"] = statistics.median(p95(each.first) for each in rounds)
    middle["answer_p95"] = statistics.median(p95(each.answer) for each in rounds)
    return middle


def open_agents(options: argparse.Namespace, stack: ExitStack) -> dict[str, Any]:
    """Start what the roles need and build their agents."""
    directory = options.model or embedded_model()
    what = (options.choice, options.tokens)
    native = tool_arguments(PARSER)
    rest = {name: value for name, value in COMMON.items() if name not in ("max_model_len", "dtype")}
    named = {name: COMMON[name] for name in ("max_model_len", "dtype")}
    here = {"model": str(directory), "vllm_kwargs": rest, **named}
    agents: dict[str, Any] = {}
    theirs: Server | None = None
    if {"peer", "same-server"} & set(options.roles):
        theirs = stack.enter_context(open_server(directory, **COMMON, **native))
    for role in options.roles:
        if role == "text":
            agents[role] = our_agent(*what, stack, **here)
        elif role == "in-process":
            template = native["chat_template"].read_text()
            agents[role] = our_agent(*what, stack, **here, chat_template=template, tool_parser=PARSER)
        elif role == "served":
            ours = stack.enter_context(open_server(directory, ours=True, **COMMON, **native))
            agents[role] = our_agent(*what, stack, base_url=ours.base_url, api_key=KEY)
        else:
            assert theirs is not None
            build = peer_agent if role == "peer" else partial(our_agent, api_key=KEY)
            agents[role] = build(*what, stack, base_url=theirs.base_url)
    return agents


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--conversations", type=int, default=16, help="at once")
    parser.add_argument("--turns", type=int, default=3, help="questions in each")
    parser.add_argument("--tokens", type=int, default=32, help="in each answer")
    parser.add_argument("--rounds", type=int, default=3, help="how often everybody is measured")
    parser.add_argument("--roles", nargs="+", choices=ROLES, default=list(ROLES))
    parser.add_argument("--choice", choices=("required", "auto"), default="required", help="of tools")
    parser.add_argument("--model", type=Path, help="model directory, in the place of the embedded one")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    plot.add_option(parser)
    options = parser.parse_args()
    with ExitStack() as stack:
        rounds = asyncio.run(measure(open_agents(options, stack), options))
    rows = ratios(rounds) if "peer" in rounds else []
    plot.save(options.plot, "Conversations with tools, over create_agent on vllm serve", rows)
    if options.json:
        print(json.dumps({"ratios": rows, "rounds": {r: [asdict(e) for e in v] for r, v in rounds.items()}}))
        return
    for role, done in rounds.items():
        print(f"{role:12} " + ", ".join(f"{name} {value:.2f}" for name, value in summary(done).items()))
    for row in rows:
        target = row.get("target", "none")
        print(f"{row['figure']:52} {row['ratio']:5.2f} (target {target}, rounds {row['rounds']})")


if __name__ == "__main__":
    main()
