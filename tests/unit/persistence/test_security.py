"""What a hostile file, filter or search can do: nothing."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import BaseModel
from sqlalchemy import text

from agent.errors import ConfigurationError, DatabaseError, MissingExtraError
from agent.persistence import ConversationStore, SQLSaver, import_langgraph_postgres, open_checkpointer
from agent.persistence.serde import StrictSerializer

CONFIG: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


class Secret(BaseModel):
    made: int = 0

    def model_post_init(self, _: Any) -> None:
        MADE.append(self)


MADE: list[Secret] = []


class Bomb:
    def __reduce__(self) -> Any:
        return (MADE.append, (Secret(),))


@pytest.fixture(autouse=True)
def nothing_made() -> Iterator[None]:
    MADE.clear()
    yield
    MADE.clear()


def put(saver: SQLSaver, thread_id: str = "t", **metadata: Any) -> None:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"messages": [HumanMessage("hello " * 20)]}
    checkpoint["channel_versions"] = {"messages": "0000000001.a"}
    config: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    described: Any = {"source": "loop", "step": 1, **metadata}
    saver.put(config, checkpoint, described, {"messages": "0000000001.a"})


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("pickle", pickle.dumps(Bomb())),
        ("json", json.dumps({"lc": 2, "type": "constructor", "id": [__name__, "Secret"]}).encode()),
        ("unheard-of", b"x"),
        ("message", b"\xff\xff"),
        ("message", ormsgpack.packb(("no such", {}))),
        ("msgpack", b"\xc1"),
    ],
)
@pytest.mark.parametrize("table", ["checkpoints", "channels", "items", "writes"])
def test_hostile_values_are_refused(tmp_path: Path, table: str, kind: str, payload: bytes) -> None:
    path = tmp_path / "hostile.sqlite"
    with open_checkpointer(path) as saver:
        put(saver)
        head: Any = saver.get_tuple(CONFIG)
        saver.put_writes(head.config, [("messages", [HumanMessage("x")])], "task")
    column = "body" if table == "checkpoints" else "value"
    with sqlite3.connect(path) as connection:
        changed = connection.execute(f"UPDATE {table} SET type = ?, {column} = ?", (kind, payload))
        assert changed.rowcount > 0
    with open_checkpointer(path) as saver, pytest.raises(DatabaseError, match=r"refused|damaged"):
        saver.get_tuple(CONFIG)
    assert not MADE


def test_types_off_the_list_are_not_constructed() -> None:
    stored = JsonPlusSerializer().dumps_typed({"secret": Secret()})
    MADE.clear()
    assert StrictSerializer().loads_typed(stored) == {"secret": {"made": 0}}
    assert not MADE
    loaded = StrictSerializer(allowed_types=[Secret]).loads_typed(stored)
    assert isinstance(loaded["secret"], Secret)


def test_pickle_is_never_written() -> None:
    with pytest.raises(Exception, match="serializable"):
        StrictSerializer().dumps_typed(object())


HOSTILE = ["' OR 1=1 --", "x'); DROP TABLE checkpoints; --", "a') OR ('1'='1", "%", "_", "]", "$.source"]


@pytest.mark.parametrize("text", HOSTILE)
def test_filters_are_data(saver: SQLSaver, text: str) -> None:
    put(saver)
    assert list(saver.list(None, filter={"source": text})) == []
    assert list(saver.list(None, filter={text: "loop"})) == []
    assert list(saver.list({"configurable": {"thread_id": text, "checkpoint_ns": text}})) == []
    before: Any = {"configurable": {"thread_id": "t", "checkpoint_id": text}}
    list(saver.list(CONFIG, before=before))
    saver.delete_thread(text)
    saver.prune([text])
    saver.delete_for_runs([text])
    assert len(list(saver.list(None, filter={"source": "loop"}))) == 1


def test_a_filter_key_that_could_leave_its_path_is_refused(saver: SQLSaver) -> None:
    put(saver)
    with pytest.raises(ConfigurationError, match="quotes"):
        list(saver.list(None, filter={'source" OR "1': "loop"}))


@pytest.mark.parametrize("text", [*HOSTILE, '"', "AND", "NEAR(", "text:*", "hello*", "(", "^", "- -", "''"])
def test_searching_and_naming_are_data(saver: SQLSaver, text: str) -> None:
    put(saver)
    store = ConversationStore(saver)
    store.search(text)
    for use in (store.resolve, store.get, store.delete):
        with pytest.raises(LookupError):
            use(f"{text}{text}")
    store.rename("t", text)
    store.tag("t", text)
    assert store.get("t").tags == (text,)
    assert [found.id for found in store.list(tag=text)] == ["t"]


def test_metadata_filters_as_the_official_savers(saver: SQLSaver) -> None:
    put(saver, "a", score=4, user="Zoë", nested={"k": 1}, on=True, empty=None)
    put(saver, "b", score=5)
    for wanted in ({"score": 4}, {"user": "Zoë"}, {"nested": {"k": 1}}, {"on": True}, {"nested.k": 1}):
        found = list(saver.list(None, filter=wanted))
        assert [each.config["configurable"]["thread_id"] for each in found] == ["a"], wanted
    assert len(list(saver.list(None, filter={"source": "loop", "score": 5}))) == 1
    assert len(list(saver.list(None, filter={"empty": None}))) == 2


class Rot13:
    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        self.count = getattr(self, "count", 0) + 1
        return "rot", bytes([self.count % 256]) + bytes((b + 13) % 256 for b in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "rot"
        return bytes((b - 13) % 256 for b in ciphertext[1:])


def test_encrypted_values_are_not_in_the_file_and_still_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    said = [HumanMessage(f"the password is swordfish {n} " + "x" * 100, id=str(n)) for n in range(5)]
    with open_checkpointer(path, cipher=Rot13()) as saver:
        config = CONFIG
        for length in range(1, 6):
            checkpoint = empty_checkpoint()
            version = saver.get_next_version(length, None)
            checkpoint["channel_values"] = {"messages": said[:length]}
            checkpoint["channel_versions"] = {"messages": version}
            config = saver.put(config, checkpoint, {"source": "loop"}, {"messages": version})
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"messages": said[1:4]}
        checkpoint["channel_versions"] = {"messages": "0000000009.a"}
        saver.put(config, checkpoint, {"source": "loop"}, {"messages": "0000000009.a"})
        found: Any = saver.get_tuple(CONFIG)
        assert found.checkpoint["channel_values"]["messages"] == said[1:4]
        store = ConversationStore(saver)
        [listed] = store.list()
        assert listed.title is not None
        assert listed.title.startswith("the password")
        with pytest.raises(ConfigurationError, match="encrypted"):
            store.search("swordfish")
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (5,)
    for file in tmp_path.iterdir():
        assert b"swordfish" not in file.read_bytes(), file


KEY = "0123456789abcdef0123456789abcdef"


def test_aes_at_rest(where: str, tmp_path: Path) -> None:
    with open_checkpointer(where, encryption_key=KEY) as saver:
        put(saver)
        head: Any = saver.get_tuple(CONFIG)
        saver.put_writes(head.config, [("messages", [HumanMessage("hello again")])], "task")
        store = ConversationStore(saver)
        assert [each.text for each in store.get("t").messages] == ["hello " * 20]
        assert store.doctor() == []
        with pytest.raises(ConfigurationError, match="cannot be searched"):
            store.search("hello")
        tables = ("checkpoints", "channels", "items", "writes")
        kinds = saver.database.read(
            lambda each: [row[0] for name in tables for row in each.once(text(f"SELECT type FROM {name}"))]
        )
        assert len(kinds) == 4
        kinds.remove("list")  # how the list of messages is put together; they are in items
        assert {kind.partition("+")[2] for kind in kinds} == {"aes"}
    for file in tmp_path.iterdir():
        assert b"hello" not in file.read_bytes()
    with open_checkpointer(where, encryption_key=KEY.encode()) as saver:
        assert saver.get_tuple(CONFIG) == head._replace(pending_writes=saver.get_tuple(CONFIG).pending_writes)  # type: ignore[union-attr]
    with open_checkpointer(where) as saver, pytest.raises(DatabaseError, match="encryption_key="):
        saver.get_tuple(CONFIG)
    other = open_checkpointer(where, encryption_key="another key here")
    with other as saver, pytest.raises(DatabaseError, match="another key"):
        saver.get_tuple(CONFIG)


def test_a_changed_ciphertext_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with open_checkpointer(path, encryption_key=KEY) as saver:
        put(saver)
    with sqlite3.connect(path) as connection:
        [(value,)] = connection.execute("SELECT value FROM items").fetchall()
        connection.execute("UPDATE items SET value = ?", (value[:-1] + bytes([value[-1] ^ 1]),))
    with (
        open_checkpointer(path, encryption_key=KEY) as saver,
        pytest.raises(DatabaseError, match="decrypted"),
    ):
        saver.get_tuple(CONFIG)


def test_keys_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="of 5 bytes: give 16, 24 or 32") as caught:
        open_checkpointer(":memory:", encryption_key="short")
    assert "short" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="not both"):
        open_checkpointer(":memory:", encryption_key=KEY, cipher=Rot13())
    monkeypatch.setitem(sys.modules, "Crypto.Cipher", None)
    with pytest.raises(MissingExtraError, match=r"vllm-agent\[encryption\]"):
        open_checkpointer(":memory:", encryption_key=KEY)


def test_every_file_is_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with open_checkpointer(tmp_path / "new" / "c.sqlite") as saver:
            put(saver)
            files = list((tmp_path / "new").iterdir())
            assert {path.name for path in files} == {"c.sqlite", "c.sqlite-wal", "c.sqlite-shm"}
            assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
            assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_no_words_of_encrypted_conversations_become_a_stored_title(where: str) -> None:
    with open_checkpointer(where, encryption_key=KEY) as saver:
        put(saver)
        store = ConversationStore(saver)
        store.rename("t", "")
        store.import_(store.export("t", format="json"), new_id="copy")
        titles = text("SELECT title FROM threads")
        assert saver.database.read(lambda each: each.once(titles)) == [(None,), (None,)]
        store.rename("t", "given")
        store.import_(store.export("t", format="json"), new_id="another")
        assert [store.title(each) for each in ("t", "another")] == ["given", "given"]


def test_no_password_in_the_error_about_an_address_to_import_from(tmp_path: Path) -> None:
    with (
        open_checkpointer(tmp_path / "c.sqlite") as saver,
        pytest.raises(ConfigurationError, match="no address of a PostgreSQL") as caught,
    ):
        import_langgraph_postgres(saver, "mysql://somebody:swordfish@host/shop")
    assert "swordfish" not in str(caught.value)
