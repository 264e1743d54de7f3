"""Images to a vision model on real vLLM: the same greedy tokens as transformers on the same weights.

No real vision model can be had offline, so an Idefics3 with random weights is made; it answers nonsense,
but to each image another one.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from http_over_engine import over_http
from langchain_core.messages import HumanMessage
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from agent import ChatVLLM

pytestmark = pytest.mark.engine

QUESTION = "What is it?"
TOKENS = 12


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.vision_model(tmp_path_factory.mktemp("vision") / "model")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Noise of another kind each, not square, so that something is cropped."""
    folder, paths = tmp_path_factory.mktemp("images"), []
    for seed in (1, 2):
        pixels = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        paths.append(folder / f"{seed}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def model(directory: Path) -> Iterator[ChatVLLM]:
    arguments = {"kv_cache_memory_bytes": 64 << 20, "max_num_seqs": 4}
    with ChatVLLM(
        model=str(directory), dtype="float32", temperature=0, max_tokens=TOKENS, vllm_kwargs=arguments
    ) as model:
        yield model


@pytest.fixture(scope="module")
def expected(directory: Path, images: list[Path]) -> list[str]:
    """What transformers generates for each image."""
    processor = AutoProcessor.from_pretrained(directory)
    network = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    answers = []
    for path in images:
        given = processor(images=[[Image.open(path)]], text=prompt, return_tensors="pt")
        made = network.generate(**given, max_new_tokens=TOKENS, do_sample=False)
        new = made[0, given["input_ids"].shape[1] :]
        answers.append(processor.tokenizer.decode(new, skip_special_tokens=True))
    return answers


def asked(block: dict[str, Any]) -> list[HumanMessage]:
    return [HumanMessage([block, {"type": "text", "text": QUESTION}])]


def as_data(path: Path) -> dict[str, Any]:
    data = base64.b64encode(path.read_bytes()).decode()
    return {"type": "image", "base64": data, "mime_type": "image/png"}


def test_each_image_gets_the_tokens_of_transformers(
    model: ChatVLLM, images: list[Path], expected: list[str]
) -> None:
    assert expected[0] != expected[1]
    for path, answer in zip(images, expected, strict=True):
        assert model.invoke(asked(as_data(path))).text == answer
        assert model.invoke(asked({"type": "image", "path": str(path)})).text == answer
        assert model.invoke(asked({"type": "image", "url": path.as_uri()})).text == answer


def test_an_image_is_fetched_from_its_address(
    model: ChatVLLM, images: list[Path], expected: list[str]
) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(images[1].parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{images[1].name}"
        assert model.invoke(asked({"type": "image", "url": url})).text == expected[1]
        server.shutdown()


async def test_images_are_streamed_and_batched(
    model: ChatVLLM, images: list[Path], expected: list[str]
) -> None:
    answers = await model.abatch([asked(as_data(path)) for path in images])
    assert [answer.text for answer in answers] == expected
    parts = [part.text async for part in model.astream(asked(as_data(images[0])))]
    assert "".join(parts) == expected[0]


def test_images_go_to_a_server_too(model: ChatVLLM, images: list[Path], expected: list[str]) -> None:
    with (
        over_http(model) as address,
        ChatVLLM(base_url=address, temperature=0, max_tokens=TOKENS) as remote,
    ):
        assert remote.invoke(asked(as_data(images[1]))).text == expected[1]
