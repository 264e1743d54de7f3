"""Pooling models on real vLLM in this process: the same numbers as transformers on the same weights.

Where no trained weights can be had offline, small models with random ones are made. What goes over HTTP goes
through vLLM's own routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from http_over_engine import over_http
from langchain_core.documents import Document
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from agent import (
    ChatVLLM,
    VLLMClassifier,
    VLLMEmbeddings,
    VLLMReranker,
    VLLMRewardModel,
    VLLMTokenClassifier,
)
from agent.catalogue.embedder import embedder_model
from agent.catalogue.models import find_model
from agent.errors import RequestError, UnsupportedTaskError
from agent.pooling import Classification, TokenClassification

pytestmark = pytest.mark.engine

TEXTS = ["Ada Lovelace lived in London.", "x", "", "The quick brown fox jumps over the lazy dog."]
CLOSE = 1e-3
SMALL: dict[str, Any] = {
    "dtype": "float32",  # by default it is 16 bits where the processor is quick at that
    "vllm_kwargs": {"kv_cache_memory_bytes": 64 << 20, "max_num_seqs": 16},
}


def outputs(kind: Any, directory: Path, *texts: Any, **options: Any) -> Any:
    """What transformers computes for one text or pair."""
    model = kind.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(**AutoTokenizer.from_pretrained(directory)(*texts, return_tensors="pt"), **options)


def same(one: Sequence[Classification], other: Sequence[Classification]) -> bool:
    """Whether two lists of classifications are the same but for rounding."""
    return [each.label for each in one] == [each.label for each in other] and all(
        a.scores == pytest.approx(b.scores, abs=CLOSE) for a, b in zip(one, other, strict=True)
    )


# -- embeddings ---------------------------------------------------------------------------------------------

POOLED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "cls_token": lambda states: states[0],
    "mean_tokens": lambda states: states.mean(0),
    "lasttoken": lambda states: states[-1],
}


def expected_vector(directory: Path, text: str, mode: str, *, normalised: bool) -> list[float]:
    states = outputs(AutoModel, directory, text).last_hidden_state[0]
    vector = POOLED[mode](states)
    return (vector / vector.norm() if normalised else vector).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("mode", "normalised"), [("cls_token", True), ("mean_tokens", False)])
def test_vectors_are_those_of_transformers(tmp_path: Path, mode: str, normalised: bool) -> None:
    directory = tiny_models.embedder(tmp_path / "model", mode, normalised=normalised)
    with VLLMEmbeddings(model=str(directory), **SMALL) as model:
        vectors = model.embed_documents(TEXTS)
        turned = VLLMEmbeddings(model=str(directory), normalize=not normalised, **SMALL).embed_query(TEXTS[0])
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert vector == pytest.approx(
            expected_vector(directory, text, mode, normalised=normalised), abs=CLOSE
        )
    other = expected_vector(directory, TEXTS[0], mode, normalised=not normalised)
    assert turned == pytest.approx(other, abs=CLOSE)


def test_the_last_token_and_the_first_dimensions(tmp_path: Path) -> None:
    directory = tiny_models.last_token_embedder(tmp_path / "model")
    texts = [text for text in TEXTS if text]  # this tokenizer makes no token of an empty text
    with VLLMEmbeddings(model=str(directory), **SMALL) as model:
        vectors = model.embed_documents(texts)
        with pytest.raises(RequestError):
            model.embed_query("")
        with over_http(model) as address:
            remote = VLLMEmbeddings(base_url=address, dimensions=8).embed_documents(texts)
        shorter = VLLMEmbeddings(model=str(directory), dimensions=8, **SMALL).embed_query(texts[0])
    for text, vector in zip(texts, vectors, strict=True):
        expected = expected_vector(directory, text, "lasttoken", normalised=True)
        assert vector == pytest.approx(expected, abs=CLOSE)
    first = np.array(vectors[0][:8])
    assert remote[0] == pytest.approx(shorter, abs=CLOSE)
    assert shorter == pytest.approx((first / np.linalg.norm(first)).tolist(), abs=CLOSE)


def test_ten_thousand_texts(tmp_path: Path) -> None:
    directory = tiny_models.embedder(tmp_path / "model", "mean_tokens", normalised=True)
    texts = [f"text {number % 2500}" for number in range(10_000)]
    with VLLMEmbeddings(model=str(directory), vllm_kwargs={"max_num_seqs": 256}, batch_size=500) as model:
        vectors = np.array(model.embed_documents(texts))
    assert vectors.shape == (10_000, 64)
    assert np.allclose(vectors[:2500], vectors[7500:], atol=CLOSE)
    assert np.abs(vectors[0] - vectors[1]).max() > 10 * CLOSE


@pytest.fixture(scope="module")
def minilm() -> Any:
    """The real weights that are used where no model is named."""
    with VLLMEmbeddings() as model:
        model.start()
        yield model


def test_real_weights_give_the_vectors_of_transformers(minilm: VLLMEmbeddings) -> None:
    for text, vector in zip(TEXTS, minilm.embed_documents(TEXTS), strict=True):
        expected = expected_vector(embedder_model(), text, "mean_tokens", normalised=True)
        assert vector == pytest.approx(expected, abs=CLOSE)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_real_weights_know_what_belongs_together(minilm: VLLMEmbeddings) -> None:
    query = np.array(minilm.embed_query("Which pets are there?"))
    cat, stocks = np.array(minilm.embed_documents(["A kitten sleeps.", "The market fell."]))
    assert query @ cat > query @ stocks + 0.1
    reranker = VLLMReranker(top_n=1)  # on the same engine
    [best] = reranker.compress_documents(
        [Document("The market fell."), Document("A kitten sleeps.")], "Which pets are there?"
    )
    assert best.page_content == "A kitten sleeps."
    assert best.metadata["relevance_score"] == pytest.approx(float(query @ cat), abs=CLOSE)


async def test_calls_from_several_tasks_are_batched(minilm: VLLMEmbeddings) -> None:
    one_by_one = await asyncio.gather(*(minilm.aembed_query(text) for text in TEXTS))
    assert np.allclose(one_by_one, await minilm.aembed_documents(TEXTS), atol=CLOSE)


def test_a_text_over_the_limit_is_an_error_or_cut(minilm: VLLMEmbeddings) -> None:
    long = "word " * 300
    with pytest.raises(
        RequestError, match=r"text number 1 has 302 tokens, and the model takes 256.*truncate"
    ):
        minilm.embed_documents(["a", long])
    cutting = VLLMEmbeddings(too_long="truncate")
    cut, beginning = cutting.embed_documents([long, "word " * 254])
    assert cut == pytest.approx(beginning, abs=CLOSE)


def test_dimensions_that_cannot_be_had_are_refused(minilm: VLLMEmbeddings) -> None:
    with pytest.raises(RequestError, match="dimensions"):
        VLLMEmbeddings(dimensions=64).embed_query("a")


def test_a_model_for_another_task_is_named(minilm: VLLMEmbeddings) -> None:
    directory = str(embedder_model())
    with pytest.raises(UnsupportedTaskError, match=r"classifies no texts.*embed"):
        VLLMClassifier(model=directory, dtype="float32").invoke("a")
    with pytest.raises(UnsupportedTaskError, match="embed"):
        VLLMTokenClassifier(model=directory, dtype="float32").invoke("a")
    with pytest.raises(UnsupportedTaskError, match="embed"):
        VLLMRewardModel(model=directory, dtype="float32").invoke("a")
    with pytest.raises(UnsupportedTaskError, match="generates no text"):
        ChatVLLM(model=directory, dtype="float32", vllm_kwargs={"runner": "pooling"}).invoke("a")


class TestEmbeddings(EmbeddingsIntegrationTests):
    """LangChain's own suite, on the real weights."""

    @pytest.fixture(autouse=True)
    def _running(self, minilm: VLLMEmbeddings) -> None:
        """The engine is shared."""

    @property
    def embeddings_class(self) -> type[VLLMEmbeddings]:
        return VLLMEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {}


class TestEmbeddingsOverHTTP(TestEmbeddings):
    """The same over vLLM's routes."""

    @pytest.fixture(autouse=True)
    def _running(self, minilm: VLLMEmbeddings) -> Iterator[None]:
        with over_http(minilm) as self.address:
            yield

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"base_url": self.address}

    def test_the_vectors_are_the_same(self, minilm: VLLMEmbeddings, model: VLLMEmbeddings) -> None:
        assert np.allclose(model.embed_documents(TEXTS), minilm.embed_documents(TEXTS), atol=CLOSE)
        scores = VLLMReranker(base_url=self.address).score(TEXTS[0], TEXTS)
        assert scores == pytest.approx(VLLMReranker().score(TEXTS[0], TEXTS), abs=CLOSE)
        with pytest.raises(RequestError, match=r"text number 0 has 302 tokens"):
            model.embed_query("word " * 300)
        with pytest.raises(UnsupportedTaskError, match="is not for this task"):
            VLLMClassifier(base_url=self.address).invoke("a")


# -- classes, scores, rewards -------------------------------------------------------------------------------


def test_classes_are_those_of_transformers(tmp_path: Path) -> None:
    directory = tiny_models.classifier(tmp_path / "model")
    with VLLMClassifier(model=str(directory), **SMALL) as model:
        found = model.batch(TEXTS)
        raw = VLLMClassifier(model=str(directory), probabilities=False, **SMALL).invoke(TEXTS[0])
        with pytest.raises(UnsupportedTaskError, match="makes no embeddings"):
            VLLMEmbeddings(model=str(directory), **SMALL).embed_query("a")
        with pytest.raises(UnsupportedTaskError, match="3 classes"):
            VLLMRewardModel(model=str(directory), **SMALL).invoke("a")
        with over_http(model) as address:
            remote = VLLMClassifier(base_url=address, labels=["calm", "glad", "sad"])
            assert same(remote.batch(TEXTS), found)
            assert VLLMClassifier(base_url=address).invoke(TEXTS[0]).label == found[0].label
            with pytest.raises(UnsupportedTaskError, match="is not for this task"):
                VLLMEmbeddings(base_url=address).embed_query("a")
            with pytest.raises(UnsupportedTaskError, match="3 classes"):
                VLLMRewardModel(base_url=address).invoke("a")
    for text, each in zip(TEXTS, found, strict=True):
        logits = outputs(AutoModelForSequenceClassification, directory, text).logits[0]
        probabilities = logits.softmax(-1).tolist()
        expected = dict(zip(("calm", "glad", "sad"), probabilities, strict=True))
        assert each.scores == pytest.approx(expected, abs=CLOSE)
        assert each.label == max(expected, key=expected.__getitem__)
        assert each.score == max(each.scores.values())
    logits = outputs(AutoModelForSequenceClassification, directory, TEXTS[0]).logits[0]
    assert list(raw.scores.values()) == pytest.approx(logits.tolist(), abs=CLOSE)


def test_a_cross_encoder_scores_as_transformers_do(tmp_path: Path) -> None:
    directory = tiny_models.cross_encoder(tmp_path / "model")
    query = "Who lived in London?"
    with VLLMReranker(model=str(directory), **SMALL) as model:
        scores = model.score(query, TEXTS)
        raw = VLLMReranker(model=str(directory), probabilities=False, **SMALL).score(query, TEXTS)
        with pytest.raises(RequestError, match=r"text number 1 .*truncate"):
            model.score(query, ["a", "word " * 100])
        cutting = VLLMReranker(model=str(directory), too_long="truncate", **SMALL)
        assert len(cutting.score(query, ["a", "word " * 100])) == 2
        with over_http(model) as address:
            remote = VLLMReranker(base_url=address)
            assert remote.score(query, TEXTS) == pytest.approx(scores, abs=CLOSE)
            with pytest.raises(RequestError, match=r"text number 1 .*truncate"):
                remote.score(query, ["a", "word " * 100])
            with pytest.raises(UnsupportedTaskError, match="is not for this task"):
                VLLMTokenClassifier(base_url=address).invoke("a")
    expected = [
        outputs(AutoModelForSequenceClassification, directory, query, text).logits[0, 0] for text in TEXTS
    ]
    assert raw == pytest.approx([float(logit) for logit in expected], abs=CLOSE)
    assert scores == pytest.approx([float(logit.sigmoid()) for logit in expected], abs=CLOSE)


def test_a_judging_reranker_reads_the_template_of_its_family(tmp_path: Path) -> None:
    """Qwen3's: a chat model that says how much likelier «yes» is than «no» after a prompt of its own."""
    directory = tiny_models.judging_reranker(tmp_path / "model")
    known = find_model("Qwen/Qwen3-Reranker-0.6B")
    template = tiny_models.score_template("qwen3_reranker")
    options: dict[str, Any] = {
        **SMALL,
        "model": str(directory),
        "score_template": template,
        "vllm_kwargs": {**SMALL["vllm_kwargs"], "hf_overrides": dict(known.hf_overrides or {})},
    }
    with VLLMReranker(**options, instruction="Find the place.") as model:
        scores = model.score("Where?", TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    network = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    for text, score in zip(TEXTS, scores, strict=True):
        prompt = tiny_models.judging_prompt("Find the place.", "Where?", text)
        with torch.no_grad():
            logits = network(**tokenizer(prompt, return_tensors="pt")).logits[0, -1]
        assert score == pytest.approx(float((logits[yes] - logits[no]).sigmoid()), abs=CLOSE)


def entities(found: TokenClassification, *, score: Callable[[float], Any] = float) -> list[Any]:
    """Its entities; batches of other sizes round their scores differently."""
    return [(each.label, each.text, each.start, each.end, score(each.score)) for each in found.entities]


def test_tokens_are_classified_as_transformers_do(tmp_path: Path) -> None:
    directory = tiny_models.token_classifier(tmp_path / "model")
    with VLLMTokenClassifier(model=str(directory), **SMALL) as model:
        found = model.batch(TEXTS)
        with pytest.raises(UnsupportedTaskError, match="scores no pairs"):
            VLLMReranker(model=str(directory), **SMALL).score("a", ["b"])
        with over_http(model) as address:
            remote = VLLMTokenClassifier(base_url=address, labels=list(tiny_models.NAMES.values()))
            assert [entities(each) for each in remote.batch(TEXTS)] == [
                entities(each, score=lambda number: pytest.approx(number, abs=CLOSE)) for each in found
            ]
            with pytest.raises(UnsupportedTaskError, match="is not for this task"):
                VLLMReranker(base_url=address).score("a", ["b"])
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for text, each in zip(TEXTS, found, strict=True):
        rows = outputs(AutoModelForTokenClassification, directory, text).logits[0].softmax(-1).tolist()
        assert [list(token.scores.values()) for token in each.tokens] == pytest.approx(
            [pytest.approx(row, abs=CLOSE) for row in rows]
        )
        told = tokenizer(text, return_offsets_mapping=True)
        assert [token.token for token in each.tokens] == tokenizer.convert_ids_to_tokens(told["input_ids"])
        places = [(start, end) if end > start else (None, None) for start, end in told["offset_mapping"]]
        assert [(token.start, token.end) for token in each.tokens] == places
    assert list(found[0].tokens[0].scores) == ["O", "B-PER", "I-PER", "B-LOC"]


def test_rewards_are_those_of_transformers(tmp_path: Path) -> None:
    directory = tiny_models.reward(tmp_path / "model")
    texts = [text for text in TEXTS if text]
    conversation = [("user", "What is 2 + 2?"), ("assistant", "4")]
    with VLLMRewardModel(model=str(directory), **SMALL) as model:
        found = [each.score for each in model.batch(texts)]
        talk = model.invoke(conversation).score
        with over_http(model) as address:
            remote = VLLMRewardModel(base_url=address)
            assert [each.score for each in remote.batch(texts)] == pytest.approx(found, abs=CLOSE)
            assert remote.invoke(conversation).score == pytest.approx(talk, abs=CLOSE)
    expected = [
        float(outputs(AutoModelForSequenceClassification, directory, text).logits[0, 0]) for text in texts
    ]
    assert found == pytest.approx(expected, abs=CLOSE)
    wire = [{"role": role, "content": content} for role, content in conversation]
    prompt = AutoTokenizer.from_pretrained(directory).apply_chat_template(wire, tokenize=False)
    expected_talk = outputs(AutoModelForSequenceClassification, directory, prompt).logits[0, 0]
    assert talk == pytest.approx(float(expected_talk), abs=CLOSE)


def test_a_reward_of_each_token_is_that_of_torch(tmp_path: Path) -> None:
    directory = tiny_models.token_reward(tmp_path / "model")
    with VLLMRewardModel(model=str(directory), **SMALL) as model:
        found = model.invoke(TEXTS[0])
        with over_http(model) as address:
            assert VLLMRewardModel(base_url=address).invoke(TEXTS[0]).steps == pytest.approx(
                found.steps, abs=CLOSE
            )
    states = outputs(AutoModel, tiny_models.body_of(directory), TEXTS[0]).last_hidden_state[0]
    expected = tiny_models.head_of(directory)(states).flatten().tolist()
    assert found.steps == pytest.approx(expected, abs=CLOSE)
    assert found.score == found.steps[-1]
