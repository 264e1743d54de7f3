"""``run`` and ``resume`` on a scripted engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_doubles import CALL, Terminal
from click.testing import CliRunner

from agent.cli.main import cli
from agent.engines import Reply
from agent.errors import RequestError
from agent.persistence.locations import without_password


def test_run_prints_the_answer_on_stdout_and_the_rest_on_stderr(terminal: Terminal) -> None:
    terminal.script(CALL, "It is 345.")
    result = terminal.run("run", "What is 15 * 23?", "--model", "scripted")
    assert result.exit_code == 0
    assert result.stdout == "It is 345.\n"
    assert '→ calculator(expression="15 * 23")' in result.stderr
    assert "← 15 * 23 = 345" in result.stderr
    assert "vllm-agent resume" in result.stderr


def test_the_command_to_go_on_names_a_database_that_was_typed(terminal: Terminal, tmp_path: Path) -> None:
    terminal.script("Yes.", "Yes.")
    typed = str(tmp_path / "my talks.sqlite")
    result = terminal.run("run", "Is it so?", "--model", "scripted", "--database", typed)
    assert f"--database '{typed}'" in result.stderr


def test_the_command_to_go_on_shows_no_password_and_nothing_of_the_environment(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.script("Yes.", "Yes.")
    monkeypatch.setenv("VLLM_AGENT_DATABASE", str(tmp_path / "other.sqlite"))
    result = terminal.run("run", "Is it so?", "--model", "scripted")
    assert "vllm-agent resume" in result.stderr
    assert "--database" not in result.stderr
    assert without_password("postgresql://me:se@cr:et@host/db") == "postgresql://me:***@host/db"
    assert without_password("C:/a:b.sqlite") == "C:/a:b.sqlite"


def test_run_as_json_holds_every_message(terminal: Terminal) -> None:
    terminal.script(CALL, "It is 345.")
    printed = terminal.json("run", "What is 15 * 23?", "--model", "scripted")
    assert printed["answer"] == "It is 345."
    question, call, result, answer = printed["messages"]
    assert question["role"] == "user"
    assert question["content"] == "What is 15 * 23?"
    assert call["tool_calls"][0]["arguments"] == {"expression": "15 * 23"}
    assert (result["role"], result["name"], result["status"]) == ("tool", "calculator", "success")
    assert result["tool_call_id"] == call["tool_calls"][0]["id"]
    assert answer["content"] == "It is 345."


def test_a_dash_reads_the_question_from_stdin(terminal: Terminal) -> None:
    engine = terminal.script("Yes.")
    terminal.run("run", "-", "--model", "scripted", input="Is it\nso?\n")
    assert engine.requests[0]["messages"][-1]["content"] == "Is it\nso?"


@pytest.mark.parametrize(("command", "code"), [(["run", "-"], 2), (["chat"], 1)])
def test_what_is_no_text_is_no_question(terminal: Terminal, command: list[str], code: int) -> None:
    terminal.script("Hi.")
    asked = CliRunner().invoke(cli, [*command, "--model", "scripted"], input=b"caf\xe9\n")
    assert (asked.exit_code, type(asked.exception)) == (code, SystemExit)
    assert "is no text: 'utf-8' codec" in asked.stderr


@pytest.mark.parametrize("question", ["", "  "])
def test_an_empty_question_is_wrong_usage(terminal: Terminal, question: str) -> None:
    result = terminal.run("run", question, "--model", "scripted")
    assert result.exit_code == 2
    assert "empty" in result.stderr


def test_a_tool_that_fails_is_shown_and_answered(terminal: Terminal) -> None:
    call = {"name": "calculator", "arguments": {"expression": "1 / 0"}}
    terminal.script(Reply(tool_calls=[call]), "It cannot be divided.")
    result = terminal.run("run", "What is 1 / 0?", "--model", "scripted")
    assert result.exit_code == 0
    assert "✗" in result.stderr
    assert result.stdout == "It cannot be divided.\n"


def test_the_limit_of_steps_reaches_the_graph_and_is_shown(terminal: Terminal) -> None:
    terminal.script(CALL, "I have no time left.")
    result = terminal.run("run", "What is 15 * 23?", "--model", "scripted", "--max-steps", "1")
    assert result.stdout == "I have no time left.\n"
    assert "--max-steps" in result.stderr


def test_tools_and_system_prompt_reach_the_model(terminal: Terminal) -> None:
    engine = terminal.script("Hello.")
    terminal.run("run", "Hi", "--model", "s", "--tools", "current_time,calculator", "--system", "Be brief.")
    request = engine.requests[0]
    assert [tool["function"]["name"] for tool in request["tools"]] == ["calculator", "current_time"]
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}


def test_without_tools_none_are_offered(terminal: Terminal) -> None:
    engine = terminal.script("Hello.")
    terminal.run("run", "Hi", "--model", "scripted", "--no-tools")
    assert not engine.requests[0].get("tools")


def test_contradicting_options_are_wrong_usage(terminal: Terminal) -> None:
    assert terminal.run("run", "Hi", "--tools", "calculator", "--no-tools").exit_code == 2


def test_a_tool_that_does_not_exist_is_one_line(terminal: Terminal) -> None:
    terminal.script("Hello.")
    result = terminal.run("run", "Hi", "--model", "scripted", "--tools", "calculater")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ") or "\nerror: " in result.stderr
    assert "calculator" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_refusal_of_the_engine_is_one_line_and_exit_code_1(terminal: Terminal) -> None:
    terminal.script(RequestError("the prompt has 9000 tokens, and 2048 fit"))
    result = terminal.run("run", "Hi", "--model", "scripted")
    assert result.exit_code == 1
    assert "error: the prompt has 9000 tokens, and 2048 fit" in result.stderr
    assert result.stdout == ""


def test_debug_shows_the_traceback_of_our_errors(terminal: Terminal) -> None:
    terminal.script(RequestError("too long"))
    with pytest.raises(RequestError):
        terminal.run("--debug", "run", "Hi", "--model", "scripted")


@pytest.mark.parametrize(
    "flags", [("--temperature", "3"), ("--max-tokens", "0"), ("--protocol", "x"), ("--vllm-arg", "x")]
)
def test_a_bad_value_is_wrong_usage(terminal: Terminal, flags: tuple[str, str]) -> None:
    assert terminal.run("run", "Hi", *flags).exit_code == 2


def test_an_unknown_key_in_the_configuration_is_one_line(terminal: Terminal, tmp_path: Path) -> None:
    directory = tmp_path / "config" / "vllm-agent"
    directory.mkdir(parents=True)
    (directory / "config.toml").write_text('modle = "x"')
    result = terminal.run("threads", "list")
    assert result.exit_code == 1
    assert "error: " in result.stderr
    assert "config.toml: unknown key 'modle'" in result.stderr


def test_resume_continues_the_last_conversation_with_its_history(terminal: Terminal) -> None:
    terminal.ask("Who are you?", "I am Ada.")
    thread = terminal.ask("What is 15 * 23?", CALL, "It is 345.")
    engine = terminal.script("It was 345.")
    printed = terminal.json("resume", "What was it?", "--model", "scripted")
    assert printed["thread_id"] == thread
    assert printed["answer"] == "It was 345."
    sent = [message["content"] for message in engine.requests[0]["messages"]]
    assert sent[0] == "What is 15 * 23?"
    assert sent[-2:] == ["It is 345.", "What was it?"]


def test_resume_finds_a_conversation_by_the_beginning_of_its_id(terminal: Terminal) -> None:
    first = terminal.ask("Who are you?", "I am Ada.")
    terminal.ask("And you?", "I am Bob.")
    terminal.script("Ada.")
    printed = terminal.json("resume", first[:8], "Again?", "--model", "scripted")
    assert printed["thread_id"] == first


def test_last_makes_a_question_of_one_word_possible(terminal: Terminal) -> None:
    terminal.ask("Who are you?", "I am Ada.")
    terminal.script("Because.")
    assert terminal.run("resume", "--last", "Why?", "--model", "scripted").stdout == "Because.\n"


def test_a_conversation_that_is_not_there_is_explained(terminal: Terminal) -> None:
    terminal.ask("Who are you?", "I am Ada.")
    result = terminal.run("resume", "Why?", "--model", "scripted")
    assert result.exit_code == 1
    assert "--last" in result.stderr


def test_resume_without_conversations_says_how_to_start_one(terminal: Terminal) -> None:
    result = terminal.run("resume", "And now what?", "--model", "scripted")
    assert result.exit_code == 1
    assert "vllm-agent run" in result.stderr


def test_resume_of_a_finished_conversation_needs_a_question(terminal: Terminal) -> None:
    thread = terminal.ask("Who are you?", "I am Ada.")
    assert terminal.run("resume", thread, "--model", "scripted").exit_code == 2


def test_an_answer_that_failed_is_finished_by_resume(terminal: Terminal) -> None:
    terminal.script(CALL, RequestError("out of luck"))
    assert terminal.run("run", "What is 15 * 23?", "--model", "scripted").exit_code == 1
    engine = terminal.script("It is 345.")
    result = terminal.run("resume", "--model", "scripted")
    assert result.stdout == "It is 345.\n"
    assert engine.requests[0]["messages"][-1]["content"] == "15 * 23 = 345"


def test_a_question_to_an_unfinished_conversation_comes_after_its_answer(terminal: Terminal) -> None:
    terminal.script(RequestError("out of luck"))
    terminal.run("run", "Who are you?", "--model", "scripted")
    terminal.script("I am Ada.", "Quite.")
    printed = terminal.json("resume", "Are you sure?", "--model", "scripted")
    said = [message["content"] for message in printed["messages"]]
    assert said == ["Who are you?", "I am Ada.", "Are you sure?", "Quite."]


def test_a_thread_may_be_named_and_is_found_again(terminal: Terminal) -> None:
    assert terminal.ask("Hi", "Hello.", thread="homework") == "homework"
    assert terminal.ask("Hi again", "Hello.", thread="home") == "homework"
    terminal.ask("Other", "Hello.", thread="homely")
    terminal.script("Hello.")
    result = terminal.run("run", "Which?", "--thread", "home", "--model", "scripted")
    assert result.exit_code == 1
    assert "several" in result.stderr


def test_control_characters_of_a_tool_never_reach_the_terminal(terminal: Terminal) -> None:
    call = {"name": "calculator", "arguments": {"expression": "\x1b[2J1"}}
    terminal.script(Reply(tool_calls=[call]), "Done.")
    result = terminal.run("run", "Hi", "--model", "scripted")
    assert "\x1b" not in result.stderr


def test_other_graphs_answer_too_and_their_work_is_shown(terminal: Terminal) -> None:
    plan = Reply(tool_calls=[{"name": "Plan", "arguments": {"steps": ["multiply"]}}])
    done = Reply(tool_calls=[{"name": "Replan", "arguments": {"finished": True, "steps": []}}])
    terminal.script(plan, CALL, "345", done, "It is 345.")
    result = terminal.run("run", "What is 15 * 23?", "--model", "scripted", "--graph", "plan_execute")
    assert result.stdout == "It is 345.\n"
    for shown in ("1. multiply", "now: multiply", "← 15 * 23 = 345", "go on: vllm-agent resume"):
        assert shown in result.stderr

    task = Reply(tool_calls=[{"name": "doer", "arguments": {"task": "multiply"}}])
    terminal.script(task, CALL, "345", "It is 345.")
    result = terminal.run("run", "What is 15 * 23?", "--model", "scripted", "--graph", "supervisor")
    assert result.stdout == "It is 345.\n"
    assert "doer: multiply" in result.stderr


def test_a_plan_of_many_steps_fits_under_the_smallest_limit(terminal: Terminal) -> None:
    steps = [f"step {number}" for number in range(6)]
    plan = Reply(tool_calls=[{"name": "Plan", "arguments": {"steps": steps}}])
    replies: list[object] = [plan, "Done."]
    for number in range(1, 6):
        left = {"finished": False, "steps": steps[number:]}
        replies += [Reply(tool_calls=[{"name": "Replan", "arguments": left}]), "Done."]
    terminal.script(*replies, "All is done.")
    question = ("run", "Do it all", "--model", "scripted", "--graph", "plan_execute")
    assert terminal.run(*question, "--max-steps", "1").stdout == "All is done.\n"


def test_a_graph_that_needs_documents_says_so(terminal: Terminal) -> None:
    terminal.script("Hello.")
    asking = ("run", "Hi", "--model", "scripted", "--graph", "retrieval")
    result = terminal.run(*asking)
    assert result.exit_code == 1
    assert "--documents FOLDER" in result.stderr
    result = terminal.run(*asking, "--documents", "/no/such/folder")
    assert result.exit_code == 1
    assert "'/no/such/folder'" in result.stderr


def test_the_graph_retrieval_answers_from_a_folder(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tea.md").write_text("# Tea\n\nGreen tea is brewed at 70 degrees.\n")
    (tmp_path / "bread.md").write_text("# Bread\n\nRye bread is baked at 220 degrees.\n")
    grade = Reply(tool_calls=[{"name": "Grade", "arguments": {"relevant": [1]}}])
    engine = terminal.script(grade, "At 70 degrees [1].")
    monkeypatch.setenv("VLLM_AGENT_DOCUMENTS", str(tmp_path))
    printed = terminal.json("run", "How is green tea brewed?", "--model", "scripted", "--graph", "retrieval")
    assert printed["answer"] == "At 70 degrees [1]."
    [*_, said] = engine.requests
    assert "Green tea is brewed at 70 degrees." in str(said)
    assert "Rye bread" not in str(said)
