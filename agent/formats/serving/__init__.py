"""The text protocol in a plain ``vllm serve``: a chat template and a tool parser that vLLM loads.

``python -m agent.formats.serving MODEL`` writes the template for a model and prints the server's arguments.
"""
