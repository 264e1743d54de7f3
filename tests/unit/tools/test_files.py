"""The file tools, and above all that nothing leads out of their directory."""

import contextlib
import gc
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools import ToolError, ToolInputError
from tools.builtin import build_file_tools, build_tools
from tools.builtin.root import Root, split

pytestmark = pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="the file tools need O_NOFOLLOW")


class Files:
    """The four tools as functions."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self._tools = {made.name: made for made in build_file_tools(root, **options)}

    def read(self, path: str, **more: Any) -> str:
        return str(self._tools["read_file"].invoke({"path": path, **more}))

    def write(self, path: str, content: str) -> str:
        return str(self._tools["write_file"].invoke({"path": path, "content": content}))

    def list(self, path: str = ".") -> str:
        return str(self._tools["list_files"].invoke({"path": path}))

    def search(self, text: str, path: str = ".") -> str:
        return str(self._tools["search_files"].invoke({"text": text, "path": path}))


@pytest.fixture
def files(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    return Files(root)


@pytest.fixture
def secret(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    file = outside / "secret.txt"
    file.write_text("the secret")
    return file


def test_what_is_written_is_read_listed_and_found(files):
    assert (
        files.write("notes/today.txt", "Buy milk.\nCall Ann.\n") == "Wrote 20 characters to notes/today.txt."
    )
    assert files.read("notes/today.txt") == "Buy milk.\nCall Ann.\n"
    assert files.read("./notes//today.txt", start_line=2) == "Call Ann.\n"
    assert files.list() == "notes/today.txt (20 bytes)"
    assert files.search("MILK") == "notes/today.txt:1: Buy milk."
    assert files.search("bread") == "No file contains 'bread'."
    files.write("notes/today.txt", "Done.")
    assert files.read("notes/today.txt") == "Done."
    assert files.list("notes") == "notes/today.txt (5 bytes)"


def test_blanks_of_every_kind_may_stand_in_a_name(files):
    for name in ("two words.txt", "議事録\u30002026.txt", "à\u00a0faire.txt", "at 9.41\u202fAM.txt"):
        (files.root / name).write_text("text")
        assert name in files.list()
        assert files.read(name) == "text"


def test_a_root_that_does_not_exist_yet_is_empty_and_made_by_the_first_write(tmp_path):
    files = Files(tmp_path / "deep" / "root")
    assert files.list() == "There are no files."
    assert files.search("a") == "No file contains 'a'."
    with pytest.raises(ToolInputError, match=r"a\.txt"):
        files.read("a.txt")
    assert not files.root.exists()
    files.write("a.txt", "x")
    assert files.read("a.txt") == "x"


OUTSIDE = [
    "../outside/secret.txt",
    "a/../../outside/secret.txt",
    "..",
    "a/..",
    "/etc/passwd",
    "//etc/passwd",
    "~/secret",
    "~root/x",
    "..\\outside\\secret.txt",
    "C:/secret",
    "a\0b",
    "a\nb",
    "x/" * 50 + "y",
    "x" * 5000,
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_paths_that_lead_out_are_refused_by_every_tool(files, secret, path):
    for attempt in (
        files.read,
        files.list,
        lambda p: files.write(p, "gone"),
        lambda p: files.search("secret", p),
    ):
        with pytest.raises(ToolError):
            attempt(path)
    assert secret.read_text() == "the secret"


@pytest.mark.parametrize("target", ["file", "directory", "inside"])
def test_links_are_not_followed_wherever_they_lead(files, secret, target):
    (files.root / "own").mkdir()
    (files.root / "own" / "secret.txt").write_text("the secret")
    link = files.root / "link"
    link.symlink_to({"file": secret, "directory": secret.parent, "inside": files.root / "own"}[target])
    path = "link" if target == "file" else "link/secret.txt"
    with pytest.raises(ToolInputError, match="symbolic link"):
        files.read(path)
    with pytest.raises(ToolInputError, match="symbolic link"):
        files.write(path, "gone")
    assert secret.read_text() == "the secret"
    assert link.is_symlink()
    assert files.list() == "link (link or special file)\nown/secret.txt (10 bytes)"
    assert files.search("the secret") == "own/secret.txt:1: the secret"
    if target != "file":
        with pytest.raises(ToolInputError, match="symbolic link"):
            files.list("link")
        with pytest.raises(ToolInputError, match="symbolic link"):
            files.write("link/new/x.txt", "gone")
    assert not (secret.parent / "new").exists()


def test_the_root_itself_may_be_a_link(tmp_path, files):
    files.write("a.txt", "x")
    (tmp_path / "alias").symlink_to(files.root)
    assert Files(tmp_path / "alias").read("a.txt") == "x"


@pytest.mark.parametrize("moment", range(4))
@pytest.mark.parametrize("action", ["read", "write", "list", "search"])
def test_a_link_made_during_the_operation_leads_nowhere(files, secret, monkeypatch, moment, action):
    """Just before the n-th time that something is opened, the directory is exchanged for a link."""
    files.write("d/secret.txt", "harmless")
    real_open, opened = os.open, iter(range(100))

    def open_after_exchange(*args: Any, **kwargs: Any) -> int:
        if next(opened) == moment:
            os.rename(files.root / "d", files.root / "away")
            (files.root / "d").symlink_to(secret.parent)
        return real_open(*args, **kwargs)

    monkeypatch.setattr(os, "open", open_after_exchange)
    said = ""
    with contextlib.suppress(ToolError):
        if action == "write":
            files.write("d/secret.txt", "overwritten")
        else:
            said = {"read": files.read, "list": files.list, "search": lambda p: files.search("e", p)}[action](
                "d/secret.txt" if action == "read" else "d"
            )
    monkeypatch.undo()
    assert secret.read_text() == "the secret"
    assert os.listdir(secret.parent) == ["secret.txt"]
    assert "the secret" not in said


names = st.sampled_from(
    ["..", ".", "", "a", "link", "d", "secret.txt", "outside", "~", "root", "...", " ", "é"]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.lists(names, max_size=8).map("/".join), st.text(max_size=40)))
def test_no_path_reads_or_writes_outside(files, secret, path):
    if not (files.root / "link").is_symlink():
        (files.root / "link").symlink_to(secret.parent)
        (files.root / "d").mkdir()
        (files.root / "d" / "up").symlink_to("..")
    for attempt in (
        files.read,
        files.list,
        lambda p: files.write(p, "x"),
        lambda p: files.search("the secret", p),
    ):
        try:
            assert "the secret\n" not in attempt(path) + "\n" or attempt == files.search
        except ToolError:
            continue
    assert secret.read_text() == "the secret"
    assert os.listdir(secret.parent) == ["secret.txt"]
    assert sorted(os.listdir(files.root.parent)) == ["outside", "root"]


@given(st.text(max_size=60))
def test_a_path_that_is_accepted_has_only_names_in_it(path):
    try:
        parts = split(path)
    except ToolInputError:
        return
    assert not {"", ".", ".."} & set(parts)
    assert not any("/" in part or "\\" in part or "\0" in part for part in parts)


def test_a_pipe_does_not_hang_and_is_no_file(files):
    os.mkfifo(files.root / "pipe")
    with pytest.raises(ToolInputError, match="special file"):
        files.read("pipe")
    with pytest.raises(ToolInputError, match="special file"):
        files.write("pipe", "x")
    assert "pipe (link or special file)" in files.list()


def test_binary_files_and_other_encodings_are_named(files):
    (files.root / "picture.png").write_bytes(b"\x89PNG\0\0")
    (files.root / "latin.txt").write_bytes("café".encode("latin-1"))
    (files.root / "bom.txt").write_bytes(b"\xef\xbb\xbftext")
    with pytest.raises(ToolInputError, match="binary"):
        files.read("picture.png")
    with pytest.raises(ToolInputError, match=r"not UTF-8 text \(byte 3\)"):
        files.read("latin.txt")
    assert files.read("bom.txt") == "text"
    assert files.search("PNG") == "No file contains 'PNG'."
    with pytest.raises(ToolInputError, match="UTF-8"):
        files.write("a.txt", "half \ud83d")
    assert not (files.root / "a.txt").exists()


def test_size_limits(tmp_path):
    files = Files(tmp_path, max_bytes=100)
    (tmp_path / "large.txt").write_text("needle " * 100)
    with pytest.raises(ToolInputError, match="larger than 100 bytes"):
        files.read("large.txt")
    with pytest.raises(ToolInputError, match="101 bytes, 100 at most"):
        files.write("new.txt", "x" * 101)
    assert files.search("needle") == "[Not searched: 1 files larger than 100 bytes.]"


def test_many_files_and_many_matches_are_bounded(files):
    for number in range(600):
        (files.root / f"{number:03}.txt").write_text("needle\n" * 2)
    listed, found = files.list().splitlines(), files.search("needle").splitlines()
    assert len(listed) == 501
    assert "first 500" in listed[-1]
    assert len(found) == 101
    assert "first 100" in found[-1]
    assert files.list() == files.list()


def test_a_long_line_is_shown_where_the_match_is(files):
    files.write("a.txt", "x" * 5000 + "needle" + "y" * 5000)
    assert "needle" in files.search("needle")
    assert len(files.search("needle")) < 300


def test_a_missing_file_names_a_close_one_and_not_the_root(files):
    files.write("notes.txt", "x")
    with pytest.raises(ToolInputError, match=r"Did you mean notes\.txt") as caught:
        files.read("note.txt")
    assert str(files.root) not in str(caught.value)


@pytest.mark.parametrize("path", [".", "", "d", "d/"])
def test_a_directory_is_not_a_file(files, path):
    (files.root / "d").mkdir()
    with pytest.raises(ToolInputError, match="directory"):
        files.read(path)
    with pytest.raises(ToolInputError, match="directory"):
        files.write(path, "x")


def test_a_file_is_not_a_directory(files):
    files.write("a.txt", "x")
    with pytest.raises(ToolInputError, match=r"'a\.txt' is a file, no directory"):
        files.list("a.txt")
    with pytest.raises(ToolInputError, match="no directory"):
        files.write("a.txt/b.txt", "x")


def test_start_line(files):
    files.write("a.txt", "one\ntwo\n")
    files.write("empty.txt", "")
    assert files.read("empty.txt") == "empty.txt is empty."
    for line in (0, 3):
        with pytest.raises(ToolInputError, match="has 2 lines"):
            files.read("a.txt", start_line=line)


def test_a_write_that_fails_leaves_the_old_content_and_no_rest(files, monkeypatch):
    files.write("a.txt", "old")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ToolError, match="No space left"):
        files.write("a.txt", "new")
    assert files.read("a.txt") == "old"
    assert os.listdir(files.root) == ["a.txt"]


def test_the_permissions_of_a_replaced_file_stay(files):
    files.write("a.txt", "old")
    (files.root / "a.txt").chmod(0o600)
    files.write("a.txt", "new")
    assert stat.S_IMODE((files.root / "a.txt").stat().st_mode) == 0o600


def test_no_descriptor_is_left_open(files):
    files.write("a/b/c.txt", "x")
    gc.collect()  # what other tests left is closed now and not meanwhile
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(50):
        files.read("a/b/c.txt")
        files.list()
        files.search("x")
        for path in ("a/missing.txt", "a/b/c.txt/d"):
            with pytest.raises(ToolError):
                files.read(path)
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert after <= before


def test_the_root_comes_from_the_options_else_the_environment_else_the_users_data(tmp_path, monkeypatch):
    def wrote_to(**options: Any) -> None:
        write = next(made for made in build_tools(**options) if made.name == "write_file")
        write.invoke({"path": "a.txt", "content": "x"})

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VLLM_AGENT_FILES", raising=False)
    wrote_to()
    found = list(tmp_path.rglob("a.txt"))
    assert [path.parent.name for path in found] == ["files"]
    assert "vllm-agent" in str(found[0])
    monkeypatch.setenv("VLLM_AGENT_FILES", str(tmp_path / "named"))
    wrote_to()
    assert (tmp_path / "named" / "a.txt").exists()
    wrote_to(files_root=tmp_path / "given")
    assert (tmp_path / "given" / "a.txt").exists()


def test_root_is_usable_alone(tmp_path):
    root = Root(tmp_path)
    root.write("a/b.txt", b"data")
    assert root.read("a/b.txt", limit=10) == b"data"
    assert [entry.path for entry in root.walk(".")] == ["a/b.txt"]
