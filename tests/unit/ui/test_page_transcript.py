"""What stands on the page: the same from a run that is told and from the messages that are kept."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from agent.ui.decisions import Draft, DraftError
from agent.ui.transcript import Answer, Call, Note, Question, Transcript
from graphs.decisions import Approve, Edit, Reject, Respond, WaitingCall

CALL = {"id": "c1", "name": "calculator", "args": {"expression": "2 + 2"}, "type": "tool_call"}
KEPT: list[BaseMessage] = [
    HumanMessage("What is 2 + 2?"),
    AIMessage("I calculate.", tool_calls=[CALL]),  # type: ignore[list-item]
    ToolMessage("4", tool_call_id="c1", name="calculator"),
    AIMessage("It is 4."),
]


def told() -> Transcript:
    """The same conversation, as a run tells it."""
    transcript = Transcript()
    transcript.asked("What is 2 + 2?")
    for token in ("I ", "calculate."):
        transcript.token(token)
    transcript.writing("calculator")
    transcript.called("calculator", {"expression": "2 + 2"}, call_id="c1")
    transcript.returned(KEPT[2], seconds=0.5, replayed=False)  # type: ignore[arg-type]
    transcript.happened({"type": "planned", "steps": ["one"]})
    for token in ("It is", " 4."):
        transcript.token(token)
    return transcript


def kinds(transcript: Transcript) -> list[str]:
    return [type(entry).__name__ for entry in transcript.entries]


def test_a_told_run_looks_like_the_kept_conversation_but_for_notes_and_times() -> None:
    run, kept = told(), Transcript.of(KEPT)
    assert kinds(kept) == ["Question", "Answer", "Call", "Answer"]
    assert kinds(run) == ["Question", "Answer", "Call", "Note", "Answer"]
    [call] = [entry for entry in run.entries if isinstance(entry, Call)]
    assert (call.state, call.result, call.seconds) == ("done", "4", 0.5)
    assert dict(call.arguments or {}) == {"expression": "2 + 2"}


def test_settling_on_what_is_kept_changes_nothing_where_it_is_the_same() -> None:
    run = told()
    before = list(run.entries)
    run.settle(KEPT)
    assert run.entries == before
    assert run.entries[-1].done  # type: ignore[union-attr]


def test_settling_shows_what_is_kept_where_it_is_not_what_was_streamed() -> None:
    run = told()
    run.settle([*KEPT[:-1], AIMessage("Something else.")])
    last = run.entries[-1]
    assert isinstance(last, Answer)
    assert last.text == "Something else."


def test_a_card_that_the_model_gave_up_goes_away() -> None:
    run = Transcript()
    run.asked("x")
    run.writing("calculator")
    run.settle([HumanMessage("x")])
    assert kinds(run) == ["Question"]


def test_a_failed_call_and_a_broken_one_say_so() -> None:
    broken = AIMessage(
        "",
        invalid_tool_calls=[
            {"id": "c2", "name": "x", "args": "{", "error": "cut off", "type": "invalid_tool_call"}
        ],
    )
    failed = ToolMessage("division by zero", tool_call_id="c1", name="calculator", status="error")
    calls = [e for e in Transcript.of([*KEPT[:2], failed, broken]).entries if isinstance(e, Call)]
    assert [(call.state, call.result) for call in calls] == [
        ("failed", "division by zero"),
        ("failed", "cut off"),
    ]


def test_waiting_calls_are_marked_and_unmarked_by_id() -> None:
    transcript = Transcript.of(KEPT[:2])
    waiting = {"id": "c1#2", "name": "calculator", "args": {"expression": "3"}}
    transcript.waits([waiting])
    call = transcript.entries[-1]
    assert isinstance(call, Call)
    assert (call.state, call.call_id) == ("waiting", "c1")
    transcript.waits([])
    assert call.state == "open"


def test_every_change_is_a_new_revision() -> None:
    transcript, seen = Transcript(), set()
    for step in (
        lambda: transcript.asked("x"),
        lambda: transcript.token("a"),
        lambda: transcript.token("b"),
        lambda: transcript.writing("t"),
        lambda: transcript.failed("no"),
    ):
        step()
        assert transcript.revision not in seen
        seen.add(transcript.revision)
    assert isinstance(transcript.entries[0], Question)
    assert isinstance(transcript.entries[-1], Note)


def draft(**filled: str) -> Draft:
    waiting = WaitingCall(id="c1", name="t", args={"a": 1}, description="", parameters={})
    return Draft(waiting, **filled)  # type: ignore[arg-type]


def test_a_filled_form_means_a_decision() -> None:
    assert draft().decision() is None
    assert draft(kind="approve").decision() == Approve()
    assert draft(kind="edit", arguments='{"a": 2}').decision() == Edit({"a": 2})
    assert draft(kind="reject", reason=" no ").decision() == Reject("no")
    assert draft(kind="respond", text="4").decision() == Respond("4")


@pytest.mark.parametrize(
    "filled", [{"kind": "edit", "arguments": "{"}, {"kind": "edit", "arguments": "[1]"}, {"kind": "respond"}]
)
def test_a_form_that_is_not_filled_says_what_is_missing(filled: dict[str, str]) -> None:
    with pytest.raises(DraftError, match=r"JSON|Write"):
        draft(**filled).decision()
