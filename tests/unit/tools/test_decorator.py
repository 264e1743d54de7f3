from typing import Annotated

import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool
from pydantic import BaseModel, Field

from tools import ToolPolicy, ToolRegistrationError, policy_of, tool


def double(number: int) -> int:
    """Double a number.

    Args:
        number: The number to double.
    """
    return 2 * number


def test_bare():
    made = tool(double)
    assert isinstance(made, BaseTool)
    assert made.invoke({"number": 4}) == 8


def test_the_model_reads_one_sentence_and_described_parameters():
    made = tool(double)
    assert made.description == "Double a number."
    assert made.args["number"]["description"] == "The number to double."


def test_with_a_name():
    made = tool("twice", policy=ToolPolicy(timeout=2))(double)
    assert (made.name, policy_of(made).timeout) == ("twice", 2)


def test_with_options_only():
    @tool(description="Other words.", return_direct=True)
    def shout(text: Annotated[str, "what to shout"]) -> str:
        return text.upper()

    assert (shout.name, shout.description, shout.return_direct) == ("shout", "Other words.", True)
    assert shout.args["text"]["description"] == "what to shout"


def test_with_a_schema_of_its_own_the_function_describes_the_tool():
    class Numbers(BaseModel):
        """Not for the model."""

        number: int = Field(description="any")

    assert tool(args_schema=Numbers)(double).description.startswith("Double a number.")


def test_as_a_call_with_a_runnable():
    def count(given: dict) -> int:
        return len(given["text"])

    class Text(BaseModel):
        text: str

    made = tool("count", RunnableLambda(count).with_types(input_type=Text), description="Count letters.")
    assert made.invoke({"text": "abc"}) == 3


async def test_async_functions():
    @tool
    async def wait(text: str) -> str:
        """Wait."""
        return text

    assert await wait.ainvoke({"text": "a"}) == "a"


def test_a_function_that_nothing_describes_is_refused_and_named():
    def nameless(a: int) -> int:
        return a

    with pytest.raises(ToolRegistrationError, match="nameless"):
        tool(nameless)


def test_an_annotation_that_cannot_be_resolved_is_our_error():
    def odd(a: "Missing") -> int:  # type: ignore[name-defined]  # noqa: F821
        """Odd."""
        return 1

    with pytest.raises(ToolRegistrationError, match="odd"):
        tool(odd)
