"""The text protocol in a plain ``vllm serve``: a chat template and a tool parser that vLLM loads.

``python -m agent.formats.serving MODEL`` writes the template for a model and prints the server's arguments.
"""

from __future__ import annotations

from pathlib import Path

PARSER = "vllm_agent_text"
"""Name of the tool parser that the plugin registers."""

PLUGIN = Path(__file__).with_name("plugin.py")
"""The file that vLLM loads."""
