"""The calculator."""

from __future__ import annotations

from tools.builtin.arithmetic import evaluate, format_number
from tools.decorator import tool
from tools.policy import ToolPolicy


@tool(policy=ToolPolicy(timeout=10, idempotent=True))
def calculator(expression: str) -> str:
    """Calculate the value of an arithmetic expression.

    Args:
        expression: For example 7 * 8, sqrt(16) or 20% of 50.
    """
    return f"{expression.strip().rstrip(' =?')} = {format_number(evaluate(expression))}"
