"""The nodes that find documents for a question: question, retrieve, rerank, grade, rewrite.

Documents are kept in the state as plain data, so that every saver can store them and every reader show them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from graphs import prompts
from graphs.context import fit_context, side_by_side, token_budget, well_formed
from graphs.events import emit
from graphs.nodes.callable import node
from graphs.nodes.decision import Decision
from graphs.nodes.model import appended
from graphs.state import ConversationState

_Node = Runnable["RetrievalState", dict[str, Any]]


class Passage(TypedDict):
    """A document as the state keeps it."""

    text: str
    metadata: dict[str, Any]


class RetrievalState(ConversationState):
    """The conversation, and what was found for the current question."""

    query: str
    """What was searched for last."""

    passages: list[Passage]
    """What was found, best first; after grading, what helps."""

    rewrites: int
    """How often the current question's query was written anew."""


class Query(BaseModel):
    """A search query."""

    query: str = Field(description="What to search for, complete in itself.")


class Grade(BaseModel):
    """Which passages help to answer the question."""

    relevant: list[int] = Field(description="Numbers of the passages that help; none if none does.")


class MissingRetrieverError(LookupError):
    """A retrieval graph was run that has nothing to search in."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """Finds documents and decides which of them help."""

    model: BaseChatModel
    """Writes queries and grades documents."""

    retriever: BaseRetriever | None
    """Where to search."""

    reranker: BaseDocumentCompressor | None = None
    """Puts what was found in order, and may drop some of it."""

    top: int = 4
    """Documents that are graded and answered from."""

    max_context_tokens: int | None = None
    """Tokens a request may take; by default what the model's profile says."""

    def question(self) -> _Node:
        """The query for a new question: the question itself, or what it means after earlier turns."""
        decision = Decision(model=self.model, form=Query, fallback=lambda: Query(query=""))

        def request(state: RetrievalState) -> list[BaseMessage]:
            return self._fitted(appended(well_formed(state["messages"]), prompts.SEARCH))

        def begun(state: RetrievalState, found: Query | None = None) -> dict[str, Any]:
            query = (found.query.strip() if found else "") or last_question(state)
            return {"query": query, "passages": [], "rewrites": 0}

        def run(state: RetrievalState, config: RunnableConfig) -> dict[str, Any]:
            return begun(state, decision.ask(request(state), config) if _has_history(state) else None)

        async def arun(state: RetrievalState, config: RunnableConfig) -> dict[str, Any]:
            if not _has_history(state):
                return begun(state)
            return begun(state, await decision.aask(await asyncio.to_thread(request, state), config))

        return node(run, arun, name="question")

    def retrieve(self) -> _Node:
        """Documents for the query.

        Raises:
            MissingRetrieverError: There is no retriever.
        """

        def run(state: RetrievalState, config: RunnableConfig) -> dict[str, Any]:
            return self._retrieved(state, self._source().invoke(state["query"], config))

        async def arun(state: RetrievalState, config: RunnableConfig) -> dict[str, Any]:
            return self._retrieved(state, await self._source().ainvoke(state["query"], config))

        return node(run, arun, name="retrieve")

    def rerank(self) -> _Node:
        """The best documents, best first."""

        def run(state: RetrievalState, config: RunnableConfig) -> dict[str, Any]:
            if self.reranker is None or not state["passages"]:
                return {"passages": state["passages"][: self.top]}
            found = self.reranker.compress_documents(documents(state), state["query"], _callbacks(config))
            return {"passages": [passage(document) for document in found][: self.top]}

        async def arun(state: RetrievalState, config: RunnableConfig) -> dict[str, Any]:
            if self.reranker is None or not state["passages"]:
                return {"passages": state["passages"][: self.top]}
            found = await self.reranker.acompress_documents(
                documents(state), state["query"], _callbacks(config)
            )
            return {"passages": [passage(document) for document in found][: self.top]}

        return node(run, arun, name="rerank")

    def grade(self) -> _Node:
        """Those documents that help, as the model judges."""

        def everything() -> Grade:
            return Grade(relevant=list(range(1, self.top + 1)))

        decision = Decision(model=self.model, form=Grade, fallback=everything)

        def request(state: RetrievalState) -> list[BaseMessage]:
            return self._fitted([HumanMessage(prompts.grade(state["query"], self.texts(state)))])

        def graded(state: RetrievalState, found: Grade) -> dict[str, Any]:
            numbers = dict.fromkeys(n for n in found.relevant if 1 <= n <= len(state["passages"]))
            kept = [state["passages"][number - 1] for number in sorted(numbers)]
            emit({"type": "graded", "kept": len(kept), "dropped": len(state["passages"]) - len(kept)})
            return {"passages": kept}

        def run(state: RetrievalState, config: RunnableConfig) -> dict[str, Any]:
            return graded(state, decision.ask(request(state), config)) if state["passages"] else {}

        async def arun(state: RetrievalState, config: RunnableConfig) -> dict[str, Any]:
            if not state["passages"]:
                return {}
            return graded(state, await decision.aask(await asyncio.to_thread(request, state), config))

        return node(run, arun, name="grade")

    def rewrite(self) -> _Node:
        """Another query, after one that found nothing."""
        decision = Decision(model=self.model, form=Query, fallback=lambda: Query(query=""))

        def request(state: RetrievalState) -> list[BaseMessage]:
            asked = [HumanMessage(last_question(state))]
            return self._fitted(appended(asked, prompts.rewrite(state["query"])))

        def rewritten(state: RetrievalState, found: Query) -> dict[str, Any]:
            return {"query": found.query.strip() or last_question(state), "rewrites": state["rewrites"] + 1}

        def run(state: RetrievalState, config: RunnableConfig) -> dict[str, Any]:
            return rewritten(state, decision.ask(request(state), config))

        async def arun(state: RetrievalState, config: RunnableConfig) -> dict[str, Any]:
            return rewritten(state, await decision.aask(await asyncio.to_thread(request, state), config))

        return node(run, arun, name="rewrite")

    def texts(self, state: Mapping[str, Any]) -> list[str]:
        """The passages as the model reads them: no longer than a request has room for."""
        budget = token_budget(self.model, self.max_context_tokens)
        return side_by_side([each["text"] for each in state["passages"]], budget)

    def _source(self) -> BaseRetriever:
        if self.retriever is None:
            raise MissingRetrieverError("this graph has no documents: build it with retriever=…")
        return self.retriever

    def _retrieved(self, state: RetrievalState, found: Sequence[Document]) -> dict[str, Any]:
        emit({"type": "retrieved", "query": state["query"], "found": len(found)})
        return {"passages": [passage(document) for document in found]}

    def _fitted(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        # In coroutines on a thread: the model may read its tokenizer, or ask a server, to count tokens.
        budget = token_budget(self.model, self.max_context_tokens)
        return fit_context(messages, model=self.model, budget=budget).messages


def last_question(state: Mapping[str, Any]) -> str:
    """What the user asked last."""
    asked = [message for message in state["messages"] if isinstance(message, HumanMessage)]
    return asked[-1].text if asked else ""


def passage(document: Document) -> Passage:
    """A document as plain data; what JSON cannot hold becomes text."""
    metadata = {str(key): _plain(value) for key, value in document.metadata.items()}
    if document.id:
        metadata.setdefault("id", document.id)
    return Passage(text=document.page_content, metadata=metadata)


def documents(state: RetrievalState) -> list[Document]:
    """The state's passages as LangChain documents."""
    return [Document(each["text"], metadata=dict(each["metadata"])) for each in state["passages"]]


def _has_history(state: RetrievalState) -> bool:
    return sum(isinstance(message, HumanMessage) for message in state["messages"]) > 1


def _callbacks(config: RunnableConfig) -> Callbacks:
    return config.get("callbacks")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(value)  # NumPy's numbers are floats as well, and cannot be stored
    return value if isinstance(value, str | int | bool | None) else str(value)
