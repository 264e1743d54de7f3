"""Models that answer with vectors, scores or classes, as LangChain's types, over every engine."""

from __future__ import annotations

from agent.pooling.classifier import VLLMClassifier
from agent.pooling.embeddings import VLLMEmbeddings
from agent.pooling.reranker import VLLMReranker
from agent.pooling.results import Classification, Entity, Reward, TokenClassification, TokenLabel
from agent.pooling.reward import VLLMRewardModel
from agent.pooling.tokens import VLLMTokenClassifier

__all__ = [
    "Classification",
    "Entity",
    "Reward",
    "TokenClassification",
    "TokenLabel",
    "VLLMClassifier",
    "VLLMEmbeddings",
    "VLLMReranker",
    "VLLMRewardModel",
    "VLLMTokenClassifier",
]
