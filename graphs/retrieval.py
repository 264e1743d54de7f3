"""The retrieval graph: answers from documents, and says from which.

::

    start ─▶ question ─▶ retrieve ─▶ rerank ─▶ grade ╌╌▶ model (answers, with citations) ─▶ end
                            ▲                    ╎          ╎  ▲
                            ╰───── rewrite ◀╌╌╌╌╌╯          ╰▶ tools
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final

from langchain_core.documents import BaseDocumentCompressor
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.constants import START
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Checkpointer

from graphs import prompts
from graphs.compiling import compiled
from graphs.limits import TurnLimits
from graphs.nodes.callable import node, way
from graphs.nodes.model import ModelNode
from graphs.nodes.retrieval import Passage, RetrievalState, Search
from graphs.nodes.tools import ToolNode
from graphs.routing import MODEL, TOOLS, WAYS, after_answer
from graphs.state import Conversation, Overflow, summarises
from graphs.toolset import prepare_tools

_CITATION: Final = re.compile(r"\[(\d{1,3})\]")
_SNIPPET = 200  # characters of a cited passage that are kept with the answer

RetrievalGraph = CompiledStateGraph[RetrievalState, None, Conversation, RetrievalState]


def build_retrieval_graph(
    *,
    model: BaseChatModel,
    retriever: BaseRetriever | None = None,
    reranker: BaseDocumentCompressor | None = None,
    tools: Iterable[BaseTool | Callable[..., Any]] = (),
    checkpointer: Checkpointer = None,
    system_prompt: str | None = None,
    top: int = 4,
    max_rewrites: int = 1,
    max_steps: int = 10,
    max_context_tokens: int | None = None,
    overflow: Overflow = "trim",
    name: str = "retrieval",
) -> RetrievalGraph:
    """Build an agent that answers from documents.

    The answer's ``response_metadata["citations"]`` lists the passages that it names as ``[1]``, ``[2]``, each
    with its number, metadata and beginning; ``["unsupported"]`` lists numbers that no passage has.

    Args:
        model: Writes queries, judges passages and answers.
        retriever: Any LangChain retriever. The graph can be drawn without one, and not run.
        reranker: Any LangChain document compressor; without one, the retriever's order stands.
        tools: What the model may call besides while it answers.
        checkpointer: Any LangGraph saver.
        system_prompt: Stands first in the request for an answer; it is not stored.
        top: Passages that are judged, and answered from at most.
        max_rewrites: How often a query that found nothing useful is written anew.
        max_steps: Model calls in one turn that may use tools.
        max_context_tokens: Tokens that a request may take.
        overflow: Whether turns that do not fit are trimmed or summarised.
        name: The graph's name in traces and in LangGraph Studio.

    Raises:
        ValueError: A limit is out of range, ``overflow`` is neither, or two tools have one name.
    """
    if top < 1 or max_rewrites < 0:
        raise ValueError(f"top={top!r}, max_rewrites={max_rewrites!r}: must be at least 1 and at least 0")
    prepared = prepare_tools(tools)
    search = Search(
        model=model,
        retriever=retriever,
        reranker=reranker,
        top=top,
        max_context_tokens=max_context_tokens,
    )
    answer = ModelNode(
        model=model,
        tools=prepared,
        system_prompt=system_prompt,
        limits=TurnLimits(max_steps=max_steps),
        max_context_tokens=max_context_tokens,
        summarise=summarises(overflow),
        briefing=lambda state: prompts.cited_answer(search.texts(state)),
    )

    def after_grade(state: RetrievalState) -> str:
        return "nothing helps" if not state["passages"] and state["rewrites"] < max_rewrites else "passages"

    builder = StateGraph(RetrievalState, input_schema=Conversation, output_schema=RetrievalState)
    builder.add_node("question", search.question())
    builder.add_node("retrieve", search.retrieve())
    builder.add_node("rerank", search.rerank())
    builder.add_node("grade", search.grade())
    builder.add_node("rewrite", search.rewrite())
    builder.add_node(MODEL, _citing(answer))
    builder.add_node(TOOLS, ToolNode(tools=prepared).as_node())
    for before, after in (
        (START, "question"),
        ("question", "retrieve"),
        ("retrieve", "rerank"),
        ("rerank", "grade"),
        ("rewrite", "retrieve"),
        (TOOLS, MODEL),
    ):
        builder.add_edge(before, after)
    grades: dict[Hashable, str] = {"nothing helps": "rewrite", "passages": MODEL}
    builder.add_conditional_edges("grade", way(after_grade), grades)
    builder.add_conditional_edges(MODEL, way(after_answer), WAYS)
    return compiled(builder, checkpointer=checkpointer, name=name)


def _citing(answer: ModelNode) -> Runnable[RetrievalState, dict[str, Any]]:
    def run(state: RetrievalState, config: RunnableConfig) -> dict[str, Any]:
        return _cited(answer.run(state, config), state)

    async def arun(state: RetrievalState, config: RunnableConfig) -> dict[str, Any]:
        return _cited(await answer.arun(state, config), state)

    return node(run, arun, name=MODEL)


def _cited(update: dict[str, Any], state: RetrievalState) -> dict[str, Any]:
    passages = state["passages"]
    messages = [
        with_citations(message, passages)
        if isinstance(message, AIMessage) and message is update["messages"][-1]
        else message
        for message in update["messages"]
    ]
    return {**update, "messages": messages}


def with_citations(answer: AIMessage, passages: list[Passage]) -> AIMessage:
    """``answer`` with the passages that it cites; its words stay as they are."""
    numbers = dict.fromkeys(int(number) for number in _CITATION.findall(answer.text))
    citations = [
        _citation(number, passages[number - 1]) for number in numbers if 1 <= number <= len(passages)
    ]
    unsupported = [number for number in numbers if not 1 <= number <= len(passages)]
    metadata: dict[str, Any] = {**answer.response_metadata, "citations": citations}
    if unsupported:
        metadata["unsupported"] = unsupported
    return answer.model_copy(update={"response_metadata": metadata})


def _citation(number: int, passage: Passage) -> Mapping[str, Any]:
    return {"number": number, "metadata": passage["metadata"], "text": passage["text"][:_SNIPPET]}
