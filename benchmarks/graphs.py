"""What a graph costs beside the model, next to LangChain's ``create_agent``.

    python -m benchmarks.graphs [--rounds 7] [--only steps|tools|memory|start]

No engine is needed: the model is a fake that answers at once, the same for both, so that all of the time is
the graph's. A step is one call of the model and the tool call that it asks for. Times are processor time, the
median of the rounds, in which the two take turns.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langgraph.graph import END, START, MessagesState, StateGraph
from rich.console import Console
from rich.table import Table

from agent import ChatVLLM, open_checkpointer
from agent.engines import ScriptedEngine
from agent.engines.scripted import Reply
from graphs import build_react_graph
from tools import tool

STEPS = 10
LENGTHS = (10, 100, 1000)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


class Fake(BaseChatModel):
    """Asks for a tool so many times in a turn, then answers."""

    steps: int = STEPS
    width: int = 1
    """Calls in one answer."""

    name_of_tool: str = "add"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        asked = 0
        for message in reversed(messages):
            if message.type == "human":
                break
            asked += message.type == "ai"
        if asked >= self.steps:
            answer = AIMessage("done")
        else:
            number = f"{len(messages)}-{asked}"
            calls = [
                {"name": self.name_of_tool, "args": {"a": asked, "b": at}, "id": f"call-{number}-{at}"}
                for at in range(self.width)
            ]
            answer = AIMessage("", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    @property
    def _llm_type(self) -> str:
        return "fake"


def ours(tools: Sequence[Any] = (add,), *, model: Any = None) -> Any:
    return build_react_graph(model=model or Fake(), tools=list(tools), max_steps=STEPS + 5)


def peer(tools: Sequence[Any] = (add,), *, model: Any = None) -> Any:
    from langchain.agents import create_agent

    return create_agent(model or Fake(), list(tools))


def bare() -> Any:
    """LangGraph with the same two nodes and nothing around them: no agent built on it can take less."""

    model, known = Fake(), {add.name: add}

    def ask(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    def call(state: MessagesState) -> Any:
        answer = cast("AIMessage", state["messages"][-1])
        return {"messages": [known[each["name"]].invoke(each) for each in answer.tool_calls]}

    def onward(state: MessagesState) -> str:
        return "call" if cast("AIMessage", state["messages"][-1]).tool_calls else END

    graph = StateGraph(MessagesState)
    graph.add_node(ask)
    graph.add_node(call)
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", onward, ["call", END])
    graph.add_edge("call", "ask")
    return graph.compile()


def scripted() -> Any:
    """Ours with the whole of ``ChatVLLM`` around the scripted engine in the place of the fake."""
    calls = [Reply(tool_calls=[{"name": "add", "arguments": {"a": 1, "b": at}}]) for at in range(STEPS)]
    return ours(model=ChatVLLM(engine=ScriptedEngine([*calls, "done"], repeat=True)))


def history(length: int) -> list[BaseMessage]:
    """A conversation of so many messages: questions, calls, results, answers."""
    messages: list[BaseMessage] = []
    while len(messages) < length:
        turn = len(messages)
        messages += [
            HumanMessage(f"What is 1 + {turn}? " + "And why? " * 5, id=f"h{turn}"),
            AIMessage(
                "", tool_calls=[{"name": "add", "args": {"a": 1, "b": turn}, "id": f"c{turn}"}], id=f"a{turn}"
            ),
            ToolMessage(str(1 + turn), tool_call_id=f"c{turn}", name="add", id=f"t{turn}"),
            AIMessage(f"It is {1 + turn}. " + "Because. " * 5, id=f"b{turn}"),
        ]
    return messages[:length] if length % 4 == 0 else messages


def seconds_per_step(graph: Any, length: int, *, repeat: int = 5) -> float:
    """Processor seconds of a step, in a turn of :data:`STEPS` steps after so many messages."""
    asked = [*history(length), HumanMessage("Go on.")]
    settings = {"recursion_limit": 100}
    started = time.process_time()
    for _ in range(repeat):
        state = graph.invoke({"messages": asked}, settings)
    spent = time.process_time() - started
    assert len(state["messages"]) == len(asked) + 2 * STEPS + 1, len(state["messages"])
    return spent / repeat / STEPS


def medians(makers: dict[str, Callable[[], Any]], length: int, *, rounds: int) -> dict[str, float]:
    """Median of the rounds for each graph, taking turns; the first round of each is thrown away."""
    graphs = {name: make() for name, make in makers.items()}
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for round_ in range(rounds + 1):
        for name, graph in graphs.items():
            gc.collect()
            spent = seconds_per_step(graph, length)
            if round_:
                times[name].append(spent)
    return {name: statistics.median(each) for name, each in times.items()}


def parallel_tools() -> float:
    """Seconds that 20 tool calls of one second each take, asked for in one answer."""

    @tool
    def wait(a: int, b: int) -> int:
        """Wait a second.

        Args:
            a: Anything.
            b: Anything.
        """
        time.sleep(1)
        return b

    graph = ours([wait], model=Fake(steps=1, width=20, name_of_tool="wait"))
    started = time.monotonic()
    state = graph.invoke({"messages": "go"})
    spent = time.monotonic() - started
    assert sum(message.type == "tool" for message in state["messages"]) == 20
    return spent


def idle_bytes(conversations: int = 200) -> float:
    """Bytes that stay in memory per conversation that has had a turn and now rests in the database."""
    with open_checkpointer(":memory:") as saver:
        graph = build_react_graph(model=Fake(steps=2), tools=[add], checkpointer=saver)

        def talk(first: int, count: int) -> None:
            for number in range(first, first + count):
                graph.invoke({"messages": "go"}, {"configurable": {"thread_id": str(number)}})

        talk(0, 20)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        talk(20, conversations)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    return (after - before) / conversations


def running_bytes(conversations: int = 100) -> float:
    """Bytes per conversation of so many that run at once, each in the middle of its model call."""
    import asyncio

    gate = asyncio.Event()

    class Waiting(Fake):
        async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
            await gate.wait()
            return self._generate(messages)

    graph = ours(model=Waiting(steps=1))

    async def measure() -> float:
        await warm()
        gate.clear()
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        running = [asyncio.create_task(graph.ainvoke({"messages": "go"})) for _ in range(conversations)]
        await asyncio.sleep(3)
        during = tracemalloc.get_traced_memory()[0]
        gate.set()
        await asyncio.gather(*running)
        tracemalloc.stop()
        return (during - before) / conversations

    async def warm() -> None:
        gate.set()
        await graph.ainvoke({"messages": "go"})

    return asyncio.run(measure())


def start_up(*code: str, runs: int = 5) -> tuple[float, float]:
    """Median wall seconds of a command, and of an interpreter that does nothing, taking turns."""
    times: dict[tuple[str, ...], list[float]] = {code: [], ("-c", "pass"): []}
    for _ in range(runs):
        for command, taken in times.items():
            started = time.monotonic()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            taken.append(time.monotonic() - started)
    return statistics.median(times[code]), statistics.median(times["-c", "pass"])


Row = tuple[str, str, str, str, str]
"""The figure's name, ours, the peer's, their ratio, the target."""


def steps(rounds: int) -> Iterator[Row]:
    """Processor time of a step, and how it grows with the conversation."""
    makers = {"ours": ours, "peer": peer, "scripted": scripted, "bare": bare}
    by_length = {length: medians(makers, length, rounds=rounds) for length in LENGTHS}
    for length, found in by_length.items():
        for name, label in (("ours", "same fake model"), ("scripted", "ChatVLLM on the scripted engine")):
            yield (
                f"ms per step after {length} messages, {label}",
                f"{found[name] * 1e3:.2f}",
                f"{found['peer'] * 1e3:.2f}",
                f"{found[name] / found['peer']:.2f}",
                "at most 0.7",
            )
        yield (
            f"ms per step after {length} messages, the two nodes alone",
            f"{found['bare'] * 1e3:.2f}",
            f"{found['peer'] * 1e3:.2f}",
            f"{found['bare'] / found['peer']:.2f}",
            "",
        )
    first, last = by_length[LENGTHS[0]], by_length[LENGTHS[-1]]
    growth = {name: last[name] / first[name] for name in makers}
    for name, label in (("ours", "same fake model"), ("scripted", "ChatVLLM on the scripted engine")):
        yield (
            f"time per step, {LENGTHS[-1]} / {LENGTHS[0]} messages, {label}",
            f"{growth[name]:.2f}",
            f"{growth['peer']:.2f}",
            f"{growth[name] / growth['peer']:.2f}",
            "flat",
        )


def at_once(rounds: int) -> Iterator[Row]:
    """Wall time of many tool calls at once; measured once, whatever the rounds."""
    yield "seconds for 20 tools of 1 s at once", f"{parallel_tools():.2f}", "", "", "at most 1.3"


def memory(rounds: int) -> Iterator[Row]:
    """Memory of conversations; measured once, whatever the rounds."""
    yield "KB per idle conversation (database in memory)", f"{idle_bytes() / 1e3:.1f}", "", "", ""
    yield "KB per running conversation", f"{running_bytes() / 1e3:.1f}", "", "", ""


def start(rounds: int) -> Iterator[Row]:
    """Wall time of commands, from nothing."""
    for what, code, target in (
        ("import agent", ("-c", "import agent"), "150"),
        ("vllm-agent --help", ("-m", "agent", "--help"), "400"),
        ("vllm-agent threads list", ("-m", "agent", "threads", "list", "--database", ":memory:"), "600"),
    ):
        spent, nothing = start_up(*code, runs=rounds)
        yield (
            f"ms for {what} / for python -c pass",
            f"{spent * 1e3:.0f}",
            f"{nothing * 1e3:.0f}",
            f"{spent / nothing:.1f}",
            f"{target} ms",
        )


PARTS: dict[str, Callable[[int], Iterator[Row]]] = {
    "steps": steps,
    "tools": at_once,
    "memory": memory,
    "start": start,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=PARTS, help="one part of the figures")
    given = parser.parse_args()
    table = Table(title="graphs")
    for column in ("figure", "ours", "peer", "ratio", "target"):
        table.add_column(column)
    for name, part in PARTS.items():
        if given.only in (None, name):
            for row in part(given.rounds):
                table.add_row(*row)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
