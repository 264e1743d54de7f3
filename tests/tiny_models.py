"""Small models with random weights, made and saved with transformers, which say what ours must answer."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen2Model,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from agent.catalogue.embedded import embedded_model
from agent.catalogue.embedder import embedder_model

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def bert_config(**options: Any) -> BertConfig:
    return BertConfig(
        vocab_size=30522,
        hidden_size=64,  # 32 a head: vLLM computes no smaller ones on a CPU
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=64,
        initializer_range=0.3,  # so that texts differ
        pad_token_id=0,
        **options,
    )


def qwen_config(kind: type[Any] = Qwen2Config, **options: Any) -> Any:
    return kind(
        vocab_size=49152,
        hidden_size=64,  # 32 a head: vLLM computes no smaller ones on a CPU
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        intermediate_size=128,
        max_position_embeddings=1024,
        initializer_range=0.3,
        pad_token_id=2,
        eos_token_id=2,
        bos_token_id=1,
        tie_word_embeddings=False,
        **options,
    )


def save_bert(model: Any, directory: Path) -> Path:
    model.save_pretrained(directory)
    for name in _TOKENIZER:
        shutil.copy(embedder_model() / name, directory / name)
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings["model_max_length"] = 64
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def save_qwen(model: Any, directory: Path) -> Path:
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(embedded_model()).save_pretrained(directory)
    return directory


def with_pooling(directory: Path, mode: str, *, normalised: bool) -> Path:
    """Say in the files of Sentence Transformers how states become a vector."""
    kinds = ["Transformer", "Pooling", "Normalize"][: 3 if normalised else 2]
    modules = [
        {
            "idx": n,
            "name": str(n),
            "path": f"{n}_{kind}" if n else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for n, kind in enumerate(kinds)
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{name}": name == mode for name in ("cls_token", "mean_tokens", "lasttoken")}
    (directory / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 64, **modes}))
    return directory


def seeded(build: Any) -> Any:
    torch.manual_seed(7)
    return build().eval()


LABELS = {0: "calm", 1: "glad", 2: "sad"}
NAMES = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}


def embedder(directory: Path, mode: str, *, normalised: bool) -> Path:
    saved = save_bert(seeded(lambda: BertModel(bert_config())), directory)
    return with_pooling(saved, mode, normalised=normalised)


def last_token_embedder(directory: Path) -> Path:
    saved = save_qwen(seeded(lambda: Qwen2Model(qwen_config())), directory)
    settings = json.loads((saved / "config.json").read_text())
    settings["is_matryoshka"] = True
    (saved / "config.json").write_text(json.dumps(settings))
    return with_pooling(saved, "lasttoken", normalised=True)


def classifier(directory: Path) -> Path:
    config = bert_config(num_labels=3, id2label=LABELS, label2id={v: k for k, v in LABELS.items()})
    return save_bert(seeded(lambda: BertForSequenceClassification(config)), directory)


def cross_encoder(directory: Path) -> Path:
    return save_bert(seeded(lambda: BertForSequenceClassification(bert_config(num_labels=1))), directory)


def token_classifier(directory: Path) -> Path:
    config = bert_config(num_labels=4, id2label=NAMES, label2id={v: k for k, v in NAMES.items()})
    return save_bert(seeded(lambda: BertForTokenClassification(config)), directory)


def reward(directory: Path) -> Path:
    return save_qwen(seeded(lambda: Qwen2ForSequenceClassification(qwen_config(num_labels=1))), directory)


def token_reward(directory: Path) -> Path:
    """A body of Qwen2 with the head of Qwen2.5-Math-RM: two layers on each token's state."""
    body, head = seeded(lambda: Qwen2Model(qwen_config())), seeded(_head)
    save_qwen(body, body_of(directory))
    save_qwen(body, directory)
    state = {f"model.{name}": value for name, value in body.state_dict().items()}
    state |= {f"score.{name}": value for name, value in head.state_dict().items()}
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**settings, "architectures": ["Qwen2ForRewardModel"]}))
    return directory


def body_of(directory: Path) -> Path:
    """Where the body of a :func:`token_reward` lies, for transformers, which do not know its architecture."""
    return directory.with_name(f"{directory.name}-body")


def head_of(directory: Path) -> torch.nn.Module:
    """The head of a :func:`token_reward`."""
    state = load_file(directory / "model.safetensors")
    head = _head()
    head.load_state_dict(
        {name.removeprefix("score."): v for name, v in state.items() if name.startswith("score.")}
    )
    return head


def _head() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))


def judging_reranker(directory: Path) -> Path:
    """Answers yes or no like the rerankers of Qwen3, whose template and settings it is given."""
    return save_qwen(seeded(lambda: Qwen3ForCausalLM(qwen_config(Qwen3Config))), directory)


def score_template(name: str) -> str:
    """A template of ours for rerankers."""
    return files("agent.pooling").joinpath(f"jinja/{name}.jinja").read_text("utf-8")


def judging_prompt(task: str, query: str, document: str) -> str:
    """What the makers of Qwen3-Reranker write around a pair (the model card's own code)."""
    return (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


VISION_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def vision_model(directory: Path) -> Path:
    """An Idefics3, which SmolVLM is too: images of 56 pixels in 16 patches, four of which are one token."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    marks = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.chat_template = VISION_TEMPLATE
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "initializer_range": 0.3}
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        **sizes,
    )
    config = Idefics3Config(
        vision_config={"num_hidden_layers": 2, "image_size": 56, "patch_size": 14, **sizes},
        text_config=text,
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=2,
        tie_word_embeddings=False,
    )
    seeded(lambda: Idefics3ForConditionalGeneration(config)).save_pretrained(directory)
    edge = {"longest_edge": 56}
    images = Idefics3ImageProcessor(size=edge, max_image_size=edge, do_image_splitting=False)
    Idefics3Processor(
        image_processor=images, tokenizer=tokenizer, image_seq_len=4, chat_template=VISION_TEMPLATE
    ).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
