"""The text protocol: tool calls as lines of text, for models that were never taught a format of their own.

A model reads the tools as a list in its system prompt and calls one by writing a line
``TOOL_CALL: {"name": "...", "arguments": {...}}``. Everything here works on the wire form of the engines:
:class:`~agent.formats.text.engine.TextToolEngine` wraps an engine that knows no tools and behaves as one
that does.
"""
