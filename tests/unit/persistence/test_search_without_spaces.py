"""Searching in scripts that put no space between words, on both databases."""

from __future__ import annotations

import unicodedata
from typing import Any

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from sqlalchemy import delete, insert, update

from agent.persistence import ConversationStore, SQLSaver, open_checkpointer
from agent.persistence.tables import message_texts, revisions

SAID = {
    "chinese": "我今天想学习人工智能技术,请用iPhone手机给我发消息。",
    "rare": "姓𠮷的人在山东",
    "japanese": "昨日は東京タワーに行きました。時々コーヒーも飲みます。",
    "korean": "저는대학생입니다. 인공지능을 공부합니다",
    "thai": "สวัสดีครับผมชื่อสมชายและผมเป็นนักเรียน",
    "lao": "ຂ້ອຍຮັກປະເທດລາວຫຼາຍ",
    "khmer": "ខ្ញុំចូលចិត្តភាសាខ្មែរ",
    "burmese": "ကျွန်တော်မြန်မာစာလေ့လာနေတယ်",
    "english": "the capital of France, in two words",
}
FOUND = [
    ("人工", "chinese"),
    ("智能 学习", "chinese"),
    ("能技", "chinese"),
    ("手", "chinese"),
    ("iphone", "chinese"),
    ("用iPhone手机", "chinese"),
    ("𠮷的", "rare"),
    ("タワー", "japanese"),
    ("京タ", "japanese"),
    ("時々コ", "japanese"),
    ("학생", "korean"),
    ("지능 대학", "korean"),
    (unicodedata.normalize("NFD", "학생"), "korean"),
    ("สมชาย", "thai"),
    ("นักเรียน", "thai"),
    ("ประ", None),
    ("ລາວ", "lao"),
    ("ភាសា", "khmer"),
    ("မြန်မာ", "burmese"),
    ("工人", None),
    ("学人", None),
    ("タワ東", None),
    ("two franc", "english"),
]


def put(saver: SQLSaver, thread_id: str, *said: str) -> None:
    checkpoint = empty_checkpoint()
    version = saver.get_next_version(None, None)
    checkpoint["channel_values"] = {"messages": [*map(HumanMessage, said)]}
    checkpoint["channel_versions"] = {"messages": version}
    config: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    saver.put(config, checkpoint, {"source": "loop"}, {"messages": version})


def test_words_in_the_middle_are_found(saver: SQLSaver, store: ConversationStore) -> None:
    for name, said in SAID.items():
        put(saver, name, said)
    for words, name in FOUND:
        assert [each.id for each in store.search(words)] == ([name] if name else []), words


def test_what_is_shown_is_what_was_said(saver: SQLSaver, store: ConversationStore) -> None:
    for name, said in SAID.items():
        put(saver, name, said)
    for words, name in FOUND:
        for match in store.search(words):
            excerpt = match.excerpt.strip("…")
            assert name is not None
            assert excerpt in SAID[name], (words, excerpt)
            assert len(excerpt) >= min(8, len(SAID[name])), (words, excerpt)


def test_what_is_shown_is_around_the_words(saver: SQLSaver, store: ConversationStore) -> None:
    put(saver, "long", "天地玄黄宇宙洪荒" * 20 + "人工智能" + "日月盈昃辰宿列张" * 20)
    [found] = store.search("人工智能")
    assert "人工智能" in found.excerpt
    assert len(found.excerpt) < 40


def test_a_long_message_is_searched(saver: SQLSaver, store: ConversationStore) -> None:
    put(saver, "long", "天地玄黄" * 1000 + "人工智能", "天地" * 200_000)
    assert [each.position for each in store.search("人工智能")] == [0]


def test_what_was_indexed_before_is_indexed_anew(where: str) -> None:
    said = {"thread_id": "t", "position": 0, "role": "human", "text": SAID["chinese"]}
    with open_checkpointer(where) as saver:
        put(saver, "t", SAID["chinese"])
        assert ConversationStore(saver).search("iphone")
        older = (
            delete(message_texts),
            insert(message_texts).values(said),
            update(revisions).values(version_num="0002"),
        )
        for statement in older:
            saver.database.write(lambda transaction, each=statement: transaction.once(each))
    with open_checkpointer(where) as saver:
        store = ConversationStore(saver)
        assert [each.id for each in store.search("人工智能")] == ["t"]
        assert store.doctor() == []
