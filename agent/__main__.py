"""``python -m agent`` is the command ``vllm-agent``."""

from agent.cli.main import main

main()
