"""The tools of the example package, made from the options that a user sets under ``[options.weather]``."""

from __future__ import annotations

from langchain_core.tools import BaseTool

from tools import ToolPolicy, tool


def build_tools(*, unit: str = "°C") -> list[BaseTool]:
    """One tool that tells a temperature.

    Args:
        unit: What stands behind the number.
    """

    @tool(policy=ToolPolicy(timeout=5, idempotent=True))
    def temperature(town: str) -> str:
        """Tell the temperature in a town.

        Args:
            town: Its name.
        """
        return f"{len(town)} {unit} in {town}"

    return [temperature]
