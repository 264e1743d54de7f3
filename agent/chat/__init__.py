"""The chat model and its pure converters between LangChain messages and the wire form of the engines."""
