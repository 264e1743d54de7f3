"""Protocols as data: which family calls tools how, chat templates of ours, and what control text is.

Nothing here imports an engine, or vLLM; both the engines and the formats above them read it.
"""
