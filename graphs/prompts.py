"""Every word that graphs say to a model or in its place, so that wording is reviewed in one room.

Nothing here carries the time, an id or a count that changes between turns: such text before the
conversation would cost the engine its prefix cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphs.events import StopReason

_LAST_ANSWER: dict[StopReason, str] = {
    "max_steps": "You have used all the tool calls allowed for this question.",
    "recursion_limit": "You have used all the steps allowed for this question.",
    "repeated_calls": "You have made the same tool call several times and the result does not change.",
    "malformed_calls": "Your tool calls could not be read.",
}

_GAVE_UP: dict[StopReason, str] = {
    "max_steps": "I used all the tool calls allowed for one question and have no final answer.",
    "recursion_limit": "I used all the steps allowed for one question and have no final answer.",
    "repeated_calls": "I kept making the same tool call without getting any further, so I stopped.",
    "malformed_calls": "I tried to use a tool, but the calls I wrote were malformed, so nothing was run.",
}


def last_answer_instruction(reason: StopReason) -> str:
    """What the model reads before its last answer in a turn."""
    return (
        f"{_LAST_ANSWER[reason]} Do not call any more tools. "
        "Answer the user now in plain words with what you know so far, and say what is missing."
    )


def gave_up(reason: StopReason) -> str:
    """The answer given in the model's place when it has no words of its own."""
    return _GAVE_UP[reason]


def malformed_call(name: str | None, error: str | None) -> str:
    """The result of a tool call whose JSON could not be read."""
    about = f" to {name!r}" if name else ""
    why = f" ({error.strip()})" if error and error.strip() else ""
    return (
        f"Error: the call{about} could not be read{why}, so it was not run. "
        "Write the call again with arguments that are one complete JSON object."
    )


def unanswered_call(name: str) -> str:
    """The result given to a call that an earlier run left without one."""
    return (
        f"Error: the run was stopped before {name!r} gave a result. "
        "It may or may not have taken effect. Call it again only if that does no harm."
    )


def call_not_run(name: str) -> str:
    """The result given to a call that an earlier run left before it had begun."""
    return f"Error: the run was stopped before {name!r} began, so it was not run."


def unknown_outcome(name: str) -> str:
    """The result of a call that was under way when the process died."""
    return (
        f"Error: the outcome of {name!r} is unknown: the process stopped while it was running. "
        "The tool was not run again, because running it twice may do harm. "
        "Tell the user, or check whether it took effect."
    )


def ask_about_unknown_outcome(name: str) -> str:
    """What a person reads who decides about such a call."""
    return (
        f"a process stopped while {name!r} was running, so it may have taken effect or not: "
        "approve to run it again, respond with what it came to, or reject to give it up"
    )


def given_up_call(name: str, reason: str) -> str:
    """The result of such a call that a person did not want to be run again."""
    why = f": {reason.strip()}" if reason.strip() else "."
    return (
        f"Error: the outcome of {name!r} is unknown: the process stopped while it was running. "
        f"The user decided not to run it again{why}\nDo not make the same call again. Go on without it."
    )


def rejected_call(reason: str) -> str:
    """The result of a call that a person did not allow."""
    why = f": {reason.strip()}" if reason.strip() else "."
    return (
        f"Error: the user did not allow this call, so it was not run{why}\n"
        "Do not make the same call again. Go on without it, or ask the user."
    )


PLAN = "Do not answer yet. Make a plan: the few steps, in order, whose results answer this."
"""Asks for a plan; stands after the user's question."""


def replan(results: Sequence[tuple[str, str]], left: Sequence[str]) -> str:
    """Asks what is left to do, after the steps so far."""
    planned = "\n".join(f"- {step}" for step in left) or "- nothing"
    return (
        f"{results_of_steps(results)}\n\nStill planned:\n{planned}\n\n"
        "Do not answer yet. Decide whether these results are enough, or which steps are still needed."
    )


def step_task(question: str, results: Sequence[tuple[str, str]], step: str) -> str:
    """The task of one step, for a worker that sees nothing else."""
    so_far = f"\n\n{results_of_steps(results)}" if results else ""
    return f"{step}\n\nThis is one step of a larger task: {question}{so_far}"


def results_of_steps(results: Sequence[tuple[str, str]]) -> str:
    """What the steps of a plan came to, for whoever reads on."""
    if not results:
        return ""
    lines = [f"{number}. {step}\n{result}" for number, (step, result) in enumerate(results, start=1)]
    return "Results so far:\n" + "\n".join(lines)


def summarise(known: str, text: str) -> str:
    """Asks for a summary of a conversation's beginning."""
    before = f"What came before:\n{known}\n\n" if known else ""
    return (
        f"{before}A conversation:\n{text}\n\nSummarise this in a few sentences: what the user wants, what "
        "was found out, and every name, number and decision that may be needed later. Write nothing else."
    )


def summary_so_far(text: str) -> str:
    """A summary as it stands at the head of a request."""
    return f"Earlier in this conversation: {text}"


SEARCH = "Do not answer yet. Write the search query that finds what this question needs, in full words."
"""Asks for a query that stands by itself, where the question leans on earlier turns."""


def grade(query: str, passages: Sequence[str]) -> str:
    """Asks which passages help."""
    return f"{numbered(passages)}\n\nWhich of these passages help to answer: {query}"


def rewrite(query: str) -> str:
    """Asks for another query, after one that found nothing."""
    return f"The search for {query!r} found nothing that helps. Write another search query, in other words."


def cited_answer(passages: Sequence[str]) -> str:
    """What the model reads before it answers from documents."""
    if not passages:
        return "No document was found that helps. Say so, and do not make anything up."
    return (
        f"{numbered(passages)}\n\nAnswer from these passages alone, and name the passage after each "
        "statement, as in [1]. If they do not say it, say that they do not."
    )


def numbered(passages: Sequence[str]) -> str:
    """Passages as they are cited."""
    return "\n\n".join(f"[{number}] {text}" for number, text in enumerate(passages, start=1))
