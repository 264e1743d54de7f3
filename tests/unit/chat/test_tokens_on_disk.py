"""Counting tokens without an engine, wherever the tokenizer lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from agent import ChatVLLM


def test_a_directory_below_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    directory = tmp_path / "models" / "tiny"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    words = Tokenizer(WordLevel({"hello": 0, "?": 1}, unk_token="?"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(directory / "tokenizer.json"))
    assert ChatVLLM(model="~/models/tiny").get_num_tokens("hello hello hello") == 3
