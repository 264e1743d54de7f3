"""The page of ``vllm-agent ui`` in a real browser, as a person uses it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from vllm_server import KEY, VLLMServer

CHILD = Path(__file__).parent / "page_child.py"
ROOT = Path(__file__).parents[2]
MISSING = "no Chromium here; install it (Debian, Ubuntu: apt-get install chromium) to test the page"
PATIENCE = 180_000.0
"""Milliseconds; a busy machine draws a page slowly."""
NAP = '''
import time
from pathlib import Path
from tools import tool

@tool
def nap(seconds: float) -> str:
    """Wait to be woken.

    Args:
        seconds: How long it is said to have been.
    """
    while not Path("wake").exists():
        time.sleep(0.02)
    return f"slept {seconds} s"
'''


@contextmanager
def serving(folder: Path, *command: str, **environment: str) -> Iterator[str]:
    """Run a command that serves the page, and yield the address that it prints."""
    child = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
            "VLLM_AGENT_HOME": str(folder / "home"),
            "VLLM_AGENT_CONFIG": "",
            "PYTHONPATH": str(ROOT),
            **environment,
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        yield child.stdout.readline().strip()
    finally:
        child.terminate()
        child.wait(PATIENCE / 1000)
    assert not (folder / ".nicegui").exists()  # nothing is left where it was started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``vllm-agent ui`` is started."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Where a running ``vllm-agent ui`` says that it is."""
    (folder / "nap.py").write_text(NAP)
    (folder / "tools.toml").write_text('modules = ["nap.py"]\n')
    arguments = ["ui", "--port", "0", "--model", "scripted", "--tools-config", str(folder / "tools.toml")]
    with serving(folder, str(CHILD), json.dumps(arguments)) as printed:
        yield printed


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)(MISSING)
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A tab on the page, which must fetch nothing from elsewhere and raise no error."""
    context = browser.new_context(viewport={"width": 1360, "height": 850}, reduced_motion="reduce")
    tab = context.new_page()
    tab.set_default_timeout(PATIENCE)
    wrong: list[str] = []
    here = address.partition("/?")[0]
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("response", lambda answer: None if answer.url.startswith(here) else wrong.append(answer.url))
    tab.goto(address)
    expect(tab.locator(".empty, .entries article").first).to_be_visible()
    yield tab
    context.close()
    assert wrong == []


def ask(page: Page, question: str) -> None:
    """Ask once the page takes questions: an answer may still be under way when its first words are there."""
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_enabled()
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")


def choose_graph(page: Page, name: str) -> None:
    page.locator(".graph-choice").click()
    page.get_by_role("option", name=name, exact=True).click()
    expect(page.locator(".picture")).to_have_attribute("aria-label", f"Drawing of the graph {name}")


def check_accessibility(page: Page) -> None:
    """axe-core finds nothing, in light and dark."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        expect(page.locator("body")).to_contain_class(f"body--{scheme}")
        found: Any = Axe().run(page).response["violations"]
        told = [(each["id"], [node["html"][:160] for node in each["nodes"]]) for each in found]
        assert told == [], scheme


def test_an_answer_streams_with_its_tool_and_the_running_node_lit(page: Page, folder: Path) -> None:
    assert "token" not in page.url
    ask(page, "go slowly")
    expect(page.locator(".call.running")).to_be_visible()
    expect(page.locator(".node.lit")).to_have_attribute("data-node", "tools")
    expect(page.get_by_text("Running: tools")).to_be_visible()
    (folder / "wake").touch()
    answer = page.locator(".answer")
    expect(answer).to_contain_text("The tool says: slept 1.2 s")
    expect(page.locator(".call.done")).to_be_visible()
    expect(page.get_by_text("Nothing runs.")).to_be_visible()
    expect(page.locator("#announcer")).to_contain_text("slept 1.2 s")  # for those who listen
    page.locator(".call .q-item").press("Enter")  # the card opens from the keyboard
    expect(page.get_by_role("group", name="Arguments")).to_contain_text('"seconds": 1.2')
    check_accessibility(page)
    page.reload()
    expect(page.locator(".answer")).to_contain_text("slept 1.2 s")


def test_tokens_come_one_by_one_and_an_answer_can_be_stopped(page: Page) -> None:
    ask(page, "an endless one")
    growing = page.locator(".answer.growing")
    expect(growing).to_contain_text("word3")
    assert "word10000" not in growing.inner_text()
    page.get_by_role("button", name="Stop the answer").click()
    expect(page.get_by_role("alert")).to_contain_text("Stopped. What was said is kept.")
    assert "word10000" not in page.locator(".answer").inner_text()
    ask(page, "hello")  # the conversation goes on
    expect(page.locator(".answer").last).to_contain_text("You said")


def test_a_failed_tool_is_shown_as_failed(page: Page) -> None:
    ask(page, "broken")
    expect(page.locator(".call.failed")).to_contain_text("zero")


def test_what_a_model_writes_is_shown_and_not_run(page: Page) -> None:
    requests: list[str] = []
    page.on("requestfinished", lambda request: requests.append(request.url))
    ask(page, "markdown")
    expect(page.locator(".answer li").first).to_have_text("one")
    assert page.title() == "vllm-agent"
    assert not any("example.invalid" in each for each in requests)


def test_several_calls_wait_and_each_decision_reaches_its_own(page: Page) -> None:
    choose_graph(page, "approval")
    ask(page, "two calls")
    expect(page.get_by_role("heading", name="2 tool calls wait for your decision")).to_be_focused()
    expect(page.locator(".call.waiting")).to_have_count(2)
    check_accessibility(page)
    page.reload()  # it waits on the server, not in the tab
    first, second = (page.locator(".waiting-call").nth(place) for place in (0, 1))
    page.get_by_role("button", name="Send decisions").click()
    expect(first.get_by_role("alert")).to_contain_text("Choose what should become of this call.")
    first.get_by_role("radio", name="Edit").click()
    first.get_by_label("Arguments, as JSON").fill('{"expression": "6 * 7"')
    expect(first.get_by_role("alert")).to_contain_text("Not JSON")
    first.get_by_label("Arguments, as JSON").fill('{"expression": "6 * 7"}')
    second.get_by_role("radio", name="Respond").click()
    second.get_by_label("The result that the model is given").fill("four, surely")
    page.get_by_role("button", name="Send decisions").click()
    expect(page.locator(".answer")).to_contain_text("The tool says")
    cards = page.locator(".call")
    expect(cards.nth(0)).to_contain_text("42")
    expect(cards.nth(1)).to_contain_text("four, surely")


def test_a_call_can_be_rejected_or_approved(page: Page) -> None:
    choose_graph(page, "approval")
    ask(page, "What is 15 * 23?")
    page.get_by_role("radio", name="Reject").click()
    page.get_by_label("Why not?").fill("too easy")
    page.get_by_role("button", name="Send decision").click()
    expect(page.locator(".call")).to_contain_text("too easy")
    expect(page.locator(".answer")).to_be_visible()
    ask(page, "What is 15 * 23?")
    page.get_by_role("radio", name="Approve").click()
    page.get_by_role("button", name="Send decision").click()
    expect(page.locator(".call.done")).to_contain_text("345")


def test_history_is_walked_and_forked_and_the_first_conversation_stays(page: Page) -> None:
    ask(page, "hello one")
    expect(page.locator(".answer")).to_have_count(1)
    ask(page, "hello two")
    expect(page.locator(".answer")).to_have_count(2)
    before = page.url
    moments = page.get_by_role("list", name="Checkpoints, the newest first")
    moments.get_by_role("button", name="Model: You said").last.click()
    expect(page.get_by_text("the conversation as it was then")).to_be_visible()
    expect(page.locator(".answer")).to_have_count(1)
    page.get_by_role("button", name="Fork from here").click()
    expect(page.get_by_text("the conversation as it was then")).to_be_hidden()
    ask(page, "hello three")
    expect(page.locator(".question").last).to_contain_text("hello three")
    expect(page.locator(".answer")).to_have_count(2)
    assert page.url != before
    page.goto(before)
    expect(page.locator(".question").last).to_contain_text("hello two")
    threads = page.get_by_role("navigation", name="Conversations")
    expect(threads.locator("[aria-current=true]")).to_contain_text("hello one")


def test_a_row_that_stays_is_the_same_widget_when_its_list_grows(page: Page) -> None:
    """Made anew, it would lose a click that comes while a run ends."""
    ask(page, "hello one")
    moments = page.get_by_role("list", name="Checkpoints, the newest first")
    answer = moments.get_by_role("button", name="Model: You said").first
    expect(answer).to_be_visible()
    before = moments.get_by_role("listitem").count()
    row = answer.element_handle()
    thread = page.get_by_role("navigation", name="Conversations").locator("[aria-current=true]")
    place = thread.element_handle()
    ask(page, "hello two")
    expect(moments.get_by_role("listitem")).to_have_count(2 * before)
    expect(moments.get_by_role("button").first).to_contain_text("You said 3 things")
    for each in (row, place):
        assert each is not None
        assert each.evaluate("it => it.isConnected")
    assert row is not None
    row.click()
    expect(page.locator(".answer")).to_have_count(1)
    expect(moments.locator("[aria-current=step]")).to_have_count(1)
    page.get_by_role("button", name="New conversation").click()
    expect(moments).to_contain_text("Nothing has happened yet.")
    expect(moments.get_by_role("button")).to_have_count(0)


def test_a_button_of_the_past_stays_while_the_present_goes_on(page: Page) -> None:
    ask(page, "hello one")
    expect(page.locator(".answer")).to_have_count(1)
    moments = page.get_by_role("list", name="Checkpoints, the newest first")
    expect(moments.get_by_role("button", name="Model: You said")).to_have_count(1)
    before = moments.get_by_role("listitem").count()
    ask(page, "a long answer")
    expect(page.locator(".answer")).to_have_count(2)
    moments.get_by_role("button", name="Model: You said").click()
    fork = page.get_by_role("button", name="Fork from here").element_handle()
    assert fork is not None
    expect(moments.get_by_role("listitem")).to_have_count(2 * before)
    assert fork.evaluate("it => it.isConnected")
    fork.click()
    expect(page.get_by_text("the conversation as it was then")).to_be_hidden()
    expect(page.locator(".question")).to_have_count(1)


def test_it_is_used_from_the_keyboard_and_on_a_narrow_screen(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the question")).to_be_focused()
    page.set_viewport_size({"width": 390, "height": 800})
    page.reload()
    expect(page.get_by_role("button", name="New conversation")).not_to_be_in_viewport()
    page.get_by_role("button", name="Conversations", exact=True).click()
    expect(page.get_by_role("button", name="New conversation")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_the_token_there_is_no_page(browser: Browser, address: str) -> None:
    context = browser.new_context()
    answer = context.new_page().goto(address.partition("?")[0])
    assert answer is not None
    assert answer.status == 401
    context.close()


@pytest.mark.engine
def test_the_real_model_answers_on_the_page(
    browser: Browser, vllm_server: VLLMServer, tmp_path: Path
) -> None:
    command = ("-m", "agent", "ui", "--port", "0", "--base-url", vllm_server.base_url, "--temperature", "0")
    command += ("--tools", "calculator", "--max-tokens", "64")
    with serving(tmp_path, *command, VLLM_AGENT_API_KEY=KEY) as printed:
        tab = browser.new_page()
        tab.set_default_timeout(PATIENCE)
        tab.goto(printed)
        ask(tab, "What is 15 * 23?")
        expect(tab.locator(".call.done")).to_contain_text("345", timeout=PATIENCE)
        expect(tab.locator(".answer").last).not_to_be_empty(timeout=PATIENCE)
        expect(tab.get_by_text("Nothing runs.")).to_be_visible(timeout=PATIENCE)
        tab.close()
