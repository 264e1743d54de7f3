"""LangGraph agents on vLLM: models, engines and persistence.

The public names are imported when they are first used: ``import agent`` imports neither vLLM nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.catalogue.fit import plan_fit
    from agent.catalogue.models import list_models
    from agent.chat.model import ChatVLLM, create_vllm_chat_model
    from agent.chat.text import VLLM
    from agent.persistence import ConversationStore, open_checkpointer
    from agent.pooling.classifier import VLLMClassifier
    from agent.pooling.embeddings import VLLMEmbeddings
    from agent.pooling.reranker import VLLMReranker
    from agent.pooling.reward import VLLMRewardModel
    from agent.pooling.tokens import VLLMTokenClassifier

__all__ = [  # noqa: RUF022 (sorted as Python sorts, which the tests ask for; ruff puts capitals first)
    "ChatVLLM",
    "ConversationStore",
    "VLLM",
    "VLLMClassifier",
    "VLLMEmbeddings",
    "VLLMReranker",
    "VLLMRewardModel",
    "VLLMTokenClassifier",
    "create_vllm_chat_model",
    "list_models",
    "open_checkpointer",
    "plan_fit",
]
__version__ = "0.1.0"

_HOMES = {
    "VLLM": "agent.chat.text",
    "ChatVLLM": "agent.chat.model",
    "ConversationStore": "agent.persistence",
    "VLLMClassifier": "agent.pooling.classifier",
    "VLLMEmbeddings": "agent.pooling.embeddings",
    "VLLMReranker": "agent.pooling.reranker",
    "VLLMRewardModel": "agent.pooling.reward",
    "VLLMTokenClassifier": "agent.pooling.tokens",
    "create_vllm_chat_model": "agent.chat.model",
    "list_models": "agent.catalogue.models",
    "open_checkpointer": "agent.persistence",
    "plan_fit": "agent.catalogue.fit",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module 'agent' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
