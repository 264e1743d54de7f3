"""What the model is sent when the conversation is longer than its context."""

from __future__ import annotations

import itertools
from typing import Any

from graph_doubles import CountingModel, ScriptedModel, calls
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from graphs import build_react_graph
from graphs.context import fit_context, token_budget, well_formed
from graphs.turn import unanswered
from tools import tool

MODEL = CountingModel(script=["ok"])


def fit(messages: list[BaseMessage], budget: int | None, model: Any = MODEL) -> list[BaseMessage]:
    return fit_context(messages, model=model, budget=budget).messages


def turn(number: int, *, calls_made: int = 0, words: int = 5) -> list[BaseMessage]:
    """A user's message, rounds of one call each, and an answer."""
    messages: list[BaseMessage] = [HumanMessage(f"question {number} " + "q " * words)]
    for i in range(calls_made):
        messages.append(calls(("look", {"n": i}), ids=[f"t{number}c{i}"]))
        messages.append(ToolMessage("r " * words, tool_call_id=f"t{number}c{i}"))
    return [*messages, AIMessage(f"answer {number} " + "a " * words)]


def count(messages: list[BaseMessage]) -> int:
    return MODEL.get_num_tokens_from_messages(messages)


def test_a_short_conversation_is_sent_as_it_is_and_not_even_counted():
    class Uncountable(ScriptedModel):
        def get_num_tokens_from_messages(self, messages: Any, tools: Any = None) -> int:
            raise AssertionError("counted")

    messages = [*turn(1), HumanMessage("next")]
    assert fit(messages, 10_000, Uncountable(script=["x"])) == messages
    assert fit(messages, None) == messages


def test_a_model_that_refuses_to_count_what_is_too_long_is_cut_for_all_the_same():
    class Refusing(CountingModel):
        def get_num_tokens_from_messages(self, messages: Any, tools: Any = None) -> int:
            tokens = super().get_num_tokens_from_messages(messages, tools)
            if tokens > 60:
                raise ValueError(f"{tokens} tokens do not fit")
            return tokens

    model = Refusing(script=["ok"])
    messages = [m for number in range(30) for m in turn(number)] + [HumanMessage("now?")]
    kept = fit(messages, 60, model)
    assert kept[-1].text == "now?"
    assert 1 < len(kept) < len(messages)
    assert count(kept) <= 60


def test_old_turns_go_first_and_the_system_message_stays():
    messages = [SystemMessage("be kind"), *turn(1), *turn(2), *turn(3), HumanMessage("now?")]
    kept = fit(messages, 40)
    assert kept[0] == messages[0]
    assert isinstance(kept[1], HumanMessage)
    assert kept[-1].text == "now?"
    assert count(kept) <= 40
    assert "question 1" not in " ".join(m.text for m in kept)


def test_the_start_of_the_request_stays_the_same_over_several_turns():
    conversation: list[BaseMessage] = []
    firsts = []
    for number in range(40):
        conversation += turn(number)
        firsts.append(fit([*conversation, HumanMessage("now?")], 120)[0].text)
    cuts = sum(a != b for a, b in itertools.pairwise(firsts))
    assert cuts >= 5, "the test must trim"
    assert cuts <= 20, "trimming at every turn would cost the prefix cache each time"


def test_a_very_long_conversation_is_not_counted_once_for_each_turn():
    class Counted(CountingModel):
        times: int = 0

        def get_num_tokens_from_messages(self, messages: Any, tools: Any = None) -> int:
            self.times += 1
            return super().get_num_tokens_from_messages(messages, tools)

    model = Counted(script=["ok"])
    messages = [m for number in range(500) for m in turn(number)]
    kept = fit(messages, 300, model)
    assert 0 < count(kept) <= 300
    assert model.times < 20


def test_long_results_of_the_current_turn_are_cut_in_the_middle():
    messages = [
        HumanMessage("find it"),
        calls(("look", {}), ids=["x"]),
        ToolMessage("first " + "word " * 5000 + "last", tool_call_id="x"),
    ]
    fitted = fit_context(messages, model=MODEL, budget=400)
    result = fitted.messages[-1]
    assert fitted.shortened == 1
    assert result.text.startswith("first")
    assert result.text.endswith("last")
    assert "characters left out" in result.text
    assert count(fitted.messages) <= 400
    assert len(messages[-1].text) > 20_000, "the state keeps everything"


def test_the_question_stays_when_its_own_rounds_must_go():
    messages = turn(1, calls_made=30)[:-1]
    kept = fit(messages, 60)
    assert kept[0] == messages[0]
    assert kept[-2:] == messages[-2:]
    assert count(kept) <= 60


def test_what_cannot_be_cut_is_sent_so_that_the_engine_says_why_not():
    messages = [HumanMessage("word " * 500)]
    assert fit(messages, 50) == messages


@given(
    turns=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 40)), min_size=1, max_size=8),
    cut=st.integers(0, 3),
    budget=st.integers(10, 400),
)
def test_calls_and_their_results_are_never_parted(turns, cut, budget):
    messages: list[BaseMessage] = [SystemMessage("be kind")]
    for number, (rounds, words) in enumerate(turns):
        messages += turn(number, calls_made=rounds, words=words)
    messages = messages[: len(messages) - cut] if cut < len(messages) - 2 else messages
    kept = fit(well_formed(messages), budget)
    results = {m.tool_call_id for m in kept if isinstance(m, ToolMessage)}
    made = {c["id"] for m in kept if isinstance(m, AIMessage) for c in m.tool_calls}
    assert results <= made
    whole = {m.tool_call_id for m in messages if isinstance(m, ToolMessage)}
    assert made & whole == results
    assert kept[0] == messages[0]
    last_question = max(i for i, m in enumerate(messages) if isinstance(m, HumanMessage))
    assert messages[last_question] in kept
    assert isinstance(kept[1], HumanMessage)


def test_without_a_tokenizer_of_its_own_the_model_is_not_asked(monkeypatch):
    def refuse(*args: Any) -> Any:
        raise AssertionError("would fetch a tokenizer from the network")

    monkeypatch.setattr("langchain_core.language_models.base._get_token_ids_default_method", refuse)
    model = ScriptedModel(script=["ok"])
    messages = [*turn(1, words=400), *turn(2, words=400), HumanMessage("now?")]
    assert len(fit(messages, 900, model)) < len(messages)


def test_what_the_model_thought_is_counted_as_well():
    thought = {"reasoning_content": "hm " * 500}
    rounds = [
        (calls(("look", {"n": i}), ids=[f"c{i}"]), ToolMessage("r", tool_call_id=f"c{i}")) for i in range(9)
    ]
    messages: list[BaseMessage] = [HumanMessage("look")]
    for answer, result in rounds:
        messages += [answer.model_copy(update={"additional_kwargs": thought}), result]
    assert fit(messages, 10**5, ScriptedModel(script=["x"])) == messages
    assert len(fit(messages, 2000, ScriptedModel(script=["x"]))) < len(messages)
    messages.append(HumanMessage("and now?"))  # no template shows again what was thought before it
    assert fit(messages, 2000, ScriptedModel(script=["x"])) == messages


def test_half_characters_are_counted_as_well():
    messages: list[BaseMessage] = [*turn(1), *turn(2), HumanMessage("half \ud83d " * 20)]
    assert fit(messages, 100, ScriptedModel(script=["ok"])) == messages[-1:]


def test_text_beyond_ascii_is_not_underestimated():
    model = ScriptedModel(script=["ok"])
    messages = [HumanMessage("漢字" * 400), AIMessage("はい"), HumanMessage("次は")]
    assert fit(messages, 500, model) == messages[-1:]


def test_the_budget_is_the_argument_or_what_the_profile_says():
    assert token_budget(MODEL, None) is None
    known = CountingModel(script=["ok"], profile={"max_input_tokens": 2048})
    assert token_budget(known, None) == 2048
    assert token_budget(known, 100) == 100


def test_trimming_changes_the_request_and_not_the_thread(run):
    @tool
    def look(n: int) -> str:
        """Look."""
        return "result " * 20

    script = [calls(("look", {"n": i}), ids=[f"l{i}"]) for i in range(6)]
    model = CountingModel(script=[*script, "done"])
    graph = build_react_graph(
        model=model,
        tools=[look],
        checkpointer=InMemorySaver(),
        system_prompt="be kind",
        max_context_tokens=80,
        max_repeats=9,
    )
    state = run(graph, "go")
    assert len(state["messages"]) == 14
    assert all(count(request) + 5 <= 80 for request in model.requests)
    assert len(model.requests[-1]) < 14
    assert [m.text for m in model.requests[-1][:2]] == ["be kind", "go"]


PIECES = st.lists(
    st.one_of(
        st.just("human"),
        st.just("answer"),
        st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
        st.integers(0, 9),
    ),
    max_size=12,
)


def conversation(pieces: list[Any]) -> list[BaseMessage]:
    """Answers with calls as lists of the calls' numbers, results as the number of their call."""
    messages: list[BaseMessage] = []
    asked: set[int] = set()
    for piece in pieces:
        if piece == "human":
            messages.append(HumanMessage("q"))
        elif piece == "answer":
            messages.append(AIMessage("a"))
        elif isinstance(piece, int):
            messages.append(ToolMessage("r", tool_call_id=str(piece)))
        elif new := [number for number in piece if number not in asked]:  # ids are unique in a conversation
            asked.update(new)
            messages.append(calls(*[("look", {})] * len(new), ids=[str(number) for number in new]))
    return messages


@given(PIECES)
def test_calls_without_a_result_are_found_however_the_conversation_is(pieces: list[Any]) -> None:
    messages = conversation(pieces)
    answered = {each.tool_call_id for each in messages if isinstance(each, ToolMessage)}
    asked = [call["id"] for each in messages if isinstance(each, AIMessage) for call in each.tool_calls]
    found = [call["id"] for _, missing in unanswered(messages) for call in missing]
    assert found == [each for each in asked if each not in answered]


@given(PIECES)
def test_what_is_sent_is_well_formed_however_the_conversation_is(pieces: list[Any]) -> None:
    messages = conversation(pieces)
    sent = well_formed(messages)
    results = {each.tool_call_id: each for each in reversed(messages) if isinstance(each, ToolMessage)}
    expected: list[BaseMessage] = []
    for message in messages:
        if not isinstance(message, ToolMessage):
            expected.append(message)
        if isinstance(message, AIMessage):
            expected += [results[each["id"]] for each in message.tool_calls if each["id"] in results]
    assert [id(each) for each in sent] == [id(each) for each in expected]
