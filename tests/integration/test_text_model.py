"""`VLLM` on the embedded model: each argument changes the outcome in the promised way."""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_community.llms import VLLM as CommunityVLLM
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import Generation
from vllm_server import KEY, VLLMServer

from agent import VLLM, ChatVLLM
from agent.engines import LocalEngine
from agent.errors import AgentError, ConfigurationError, EngineClosedError, EngineStartError, RequestError

pytestmark = pytest.mark.engine

PROMPT = "Once upon a time there was a"
COUNT = "1 2 3 4 5 6 7 8 9 10 11 12"


@pytest.fixture(scope="module")
def llm(real_model: ChatVLLM) -> Iterator[VLLM]:
    """Greedy, on the engine that all tests share."""
    with VLLM(temperature=0, max_new_tokens=12) as model:
        assert model._session.engine() is real_model._session.engine()
        yield model


def sampled(**arguments: Any) -> VLLM:
    """A model of the same engine that samples."""
    return VLLM(**{"max_new_tokens": 12, "seed": 7, **arguments})


def generations(model: VLLM, prompt: str = PROMPT, **arguments: Any) -> list[Generation]:
    [found] = model.generate([prompt], **arguments).generations
    return found  # type: ignore[return-value]  # neither chunks nor messages


def running(model: VLLM) -> Any:
    engine = model._session.engine()
    assert isinstance(engine, LocalEngine)
    assert engine._server is not None
    assert engine._server._llm is not None
    return engine._server._llm


def core(model: VLLM) -> Any:
    return running(model).engine_core.engine_core


def config(model: VLLM) -> Any:
    """vLLM's own configuration, as it runs."""
    return running(model).vllm_config


def info(generation: Generation) -> dict[str, Any]:
    assert generation.generation_info is not None
    return generation.generation_info


def likelihood(generation: Generation) -> float:
    return sum(info(generation)["logprobs"]["token_logprobs"])


# -- what it is ---------------------------------------------------------------------------------------------


def test_it_is_langchains_own_kind_and_continues_a_text(llm: VLLM) -> None:
    assert isinstance(llm, CommunityVLLM)
    assert llm.start().kind == "in-process"
    assert config(llm).model_config.trust_remote_code is False  # never turned on implicitly
    assert llm.invoke(COUNT).startswith(" 13 14")  # a chat template would make a question of it


def test_it_gives_the_counts_of_tokens_and_the_reason_of_the_end(llm: VLLM) -> None:
    result = llm.generate([COUNT, PROMPT])
    assert [info(found[0])["finish_reason"] for found in result.generations] == ["length", "length"]  # type: ignore[arg-type]
    assert result.llm_output is not None
    usage = result.llm_output["token_usage"]
    assert usage["completion_tokens"] == 24
    assert usage["prompt_tokens"] == llm.get_num_tokens(COUNT) + llm.get_num_tokens(PROMPT)
    assert usage["total_tokens"] == usage["prompt_tokens"] + 24
    assert result.llm_output["model_name"] == llm.start().model


def test_tokens_are_counted_by_the_models_tokenizer(llm: VLLM) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llm.start().model)
    for text in (COUNT, "Grüße, 世界!", " word" * 9000):  # the last one is longer than the context
        assert llm.get_token_ids(text) == tokenizer.encode(text, add_special_tokens=False)
    assert llm.get_num_tokens("") == 0


# -- how much, and how it ends ------------------------------------------------------------------------------


def test_max_new_tokens(llm: VLLM) -> None:
    assert llm.get_num_tokens(llm.invoke(COUNT, max_new_tokens=4)) == 4
    assert llm.invoke(COUNT, max_tokens=4) == llm.invoke(COUNT, max_new_tokens=4)
    assert llm.invoke(COUNT).startswith(llm.invoke(COUNT, max_new_tokens=4))
    assert len(llm.invoke(COUNT)) > len(llm.invoke(COUNT, max_new_tokens=4))


def test_stop_of_the_constructor_and_of_the_call_both_stop() -> None:
    model = VLLM(temperature=0, max_new_tokens=24, stop=[" 15"])
    assert model.invoke(COUNT) == " 13 14"
    assert model.invoke(COUNT, stop=["14"]) == " 13 "
    assert model.invoke(COUNT, stop=["never"]) == " 13 14"  # the call's does not replace the constructor's
    assert model.bind(stop=["14"]).invoke(COUNT) == " 13 "
    [found] = generations(model, COUNT)
    assert (info(found)["finish_reason"], info(found)["stop_reason"]) == ("stop", " 15")


def test_ignore_eos_runs_to_the_limit() -> None:
    end = {"logit_bias": {"2": 100.0}}  # <|im_end|>, the end token, becomes certain
    model = VLLM(temperature=0, max_new_tokens=8)
    [ended] = generations(model, **end)
    assert (ended.text, info(ended)["finish_reason"]) == ("", "stop")
    result = VLLM(temperature=0, max_new_tokens=8, ignore_eos=True).generate([PROMPT], **end)
    assert info(result.generations[0][0])["finish_reason"] == "length"  # type: ignore[arg-type]
    assert result.llm_output is not None
    assert result.llm_output["token_usage"]["completion_tokens"] == 8


# -- sampling -----------------------------------------------------------------------------------------------


def test_temperature_zero_is_greedy_and_a_high_one_is_not(llm: VLLM) -> None:
    greedy = {llm.invoke(PROMPT) for _ in range(3)}
    assert len(greedy) == 1
    hot = {sampled(temperature=2.0, seed=seed).invoke(PROMPT) for seed in range(3)}
    assert len(hot) == 3
    assert sampled(temperature=1.0).invoke(PROMPT) != sampled(temperature=2.0).invoke(PROMPT)


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}], ids=["top_k", "top_p"])
def test_a_narrow_choice_is_greedy(llm: VLLM, narrow: dict[str, Any]) -> None:
    assert sampled(temperature=2.0, **narrow).invoke(PROMPT) == llm.invoke(PROMPT)
    assert sampled(temperature=2.0).invoke(PROMPT) != llm.invoke(PROMPT)


def test_a_seed_repeats_and_another_one_does_not() -> None:
    assert sampled(seed=1).invoke(PROMPT) == sampled(seed=1).invoke(PROMPT)
    assert sampled(seed=1).invoke(PROMPT) != sampled(seed=2).invoke(PROMPT)
    assert sampled().invoke(PROMPT, seed=1) == sampled(seed=1).invoke(PROMPT)


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_penalties_change_how_much_it_repeats_itself(llm: VLLM, penalty: str) -> None:
    def tokens(amount: float) -> list[str]:
        model = VLLM(**{"temperature": 0, "max_new_tokens": 40, "logprobs": 0, penalty: amount})
        [found] = generations(model, "na na na na na na na na", ignore_eos=True)
        return info(found)["logprobs"]["tokens"]

    rewarded, plain, penalised = tokens(-2.0), tokens(0.0), tokens(2.0)
    assert len(set(rewarded)) < len(set(penalised))
    assert plain != penalised


# -- several sequences --------------------------------------------------------------------------------------


def test_n_sequences_come_back_as_generations() -> None:
    found = generations(sampled(n=3))
    assert len({generation.text for generation in found}) == 3
    assert len(generations(sampled(), n=2)) == 2


def unranked_with_a_later_best() -> tuple[int, list[Generation]]:
    """A seed whose first sequence is not the likeliest, and its sequences: processors differ here."""
    for seed in range(7, 40):
        found = generations(sampled(n=5, logprobs=0, seed=seed))
        if found[0].text != max(found, key=likelihood).text:
            return seed, found
    pytest.fail("the first sequence is always the likeliest: they are ranked")


def test_best_of_returns_the_most_likely_of_the_sequences() -> None:
    seed, unranked = unranked_with_a_later_best()
    five = generations(sampled(n=5, best_of=5, logprobs=0, seed=seed))
    assert {generation.text for generation in five} == {generation.text for generation in unranked}
    assert len({generation.text for generation in five}) == 5
    for generation in five:
        assert info(generation)["cumulative_logprob"] == pytest.approx(likelihood(generation))
    best = max(unranked, key=likelihood)
    [one] = generations(sampled(n=1, best_of=5, seed=seed))
    assert one.text == best.text
    assert "logprobs" not in info(one)
    two = generations(sampled(n=2, best_of=5, seed=seed))
    assert [generation.text for generation in two] == [generation.text for generation in five[:2]]


def test_best_of_counts_all_that_was_generated() -> None:
    result = sampled(n=1, best_of=5, ignore_eos=True).generate([PROMPT])
    assert result.llm_output is not None
    assert result.llm_output["token_usage"]["completion_tokens"] == 60


def test_a_beam_search_finds_what_is_at_least_as_likely_as_greedy(llm: VLLM) -> None:
    beam = VLLM(use_beam_search=True, max_new_tokens=12)
    gains = []
    for prompt in (PROMPT, "My favourite colour is", "The best thing about the sea is"):
        [greedy] = generations(llm, prompt, logprobs=0)
        [found] = generations(beam, prompt, logprobs=0)
        assert info(found)["cumulative_logprob"] == pytest.approx(likelihood(found))
        gains.append(likelihood(found) - likelihood(greedy))
    assert min(gains) > -1e-3
    assert max(gains) > 0.1  # it is another search, not greedy's result three times


def test_a_beam_search_returns_n_beams_the_likeliest_first() -> None:
    found = generations(VLLM(use_beam_search=True, n=3, best_of=5, max_new_tokens=6))
    scores = [info(generation)["cumulative_logprob"] for generation in found]
    assert len({generation.text for generation in found}) == 3
    assert scores == sorted(scores, reverse=True)


def test_a_beam_search_stops_at_stop_texts_too() -> None:
    beam = VLLM(use_beam_search=True, max_new_tokens=12, stop=[" 15"])
    [found] = generations(beam, COUNT, logprobs=1)
    assert found.text == " 13 14"
    assert info(found)["finish_reason"] == "stop"
    assert "".join(info(found)["logprobs"]["tokens"]).startswith(" 13 14")
    assert beam.invoke(COUNT, stop=["14"]) == " 13 "


async def test_a_cancelled_beam_search_ends(llm: VLLM) -> None:
    scheduler = core(llm).scheduler
    call = asyncio.create_task(VLLM(use_beam_search=True, max_new_tokens=4000).ainvoke(PROMPT))
    while not scheduler.get_request_counts()[0]:  # noqa: ASYNC110 (the scheduler has no event)
        await asyncio.sleep(0.005)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    deadline, idle = time.monotonic() + 60, 0
    while idle < 100:  # a search that goes on is seldom between two steps, and never so for long
        assert time.monotonic() < deadline, "the search goes on"
        idle = 0 if sum(scheduler.get_request_counts()) else idle + 1
        await asyncio.sleep(0.005)


def test_a_beam_search_says_once_what_it_leaves_out() -> None:
    with pytest.warns(UserWarning, match=r"temperature=0.5, top_k=3") as told:
        beam = VLLM(use_beam_search=True, temperature=0.5, top_k=3, max_new_tokens=3)
    assert [each.category for each in told].count(UserWarning) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        beam.invoke(PROMPT)
        beam.invoke(PROMPT, top_k=4)


# -- log-probabilities --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"temperature": 1.5}, {"use_beam_search": True}], ids=str)
def test_logprobs_give_the_alternatives_and_the_chosen_token(how: dict[str, Any]) -> None:
    model = (
        VLLM(**{"temperature": 0, "max_new_tokens": 8, "logprobs": 5, "seed": 3, **how})
        if not how.get("use_beam_search")
        else VLLM(max_new_tokens=8, logprobs=5, **how)
    )
    [found] = generations(model)
    logprobs = info(found)["logprobs"]
    assert "".join(logprobs["tokens"]) == found.text
    assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == len(logprobs["top_logprobs"]) == 8
    for token, value, others in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert others[token] == value
        fifth = sorted(others.values(), reverse=True)[4]
        assert len(others) == 5 + (value < fifth)
    assert all("logprobs" not in info(generation) for generation in generations(sampled()))


# -- sync, async, streamed, batched -------------------------------------------------------------------------


class Tokens(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[str] = []

    def on_llm_new_token(self, token: str, **_: Any) -> None:
        self.tokens.append(token)


async def test_all_ways_to_call_say_the_same(llm: VLLM) -> None:
    expected = await asyncio.to_thread(llm.invoke, COUNT)
    parts = await asyncio.to_thread(lambda: list(llm.stream(COUNT)))
    assert len(parts) > 1  # how many depends on how quickly they are taken
    assert "".join(parts) == expected
    assert await llm.ainvoke(COUNT) == expected
    assert "".join([part async for part in llm.astream(COUNT)]) == expected
    assert [answer[:10] for answer in await llm.abatch([COUNT, COUNT])] == [expected[:10]] * 2


def test_streams_call_back_and_end_with_the_facts(llm: VLLM) -> None:
    handler = Tokens()
    parts = list(llm.with_config(callbacks=[handler]).stream(COUNT))
    assert handler.tokens == parts
    chunks = list(llm._stream(COUNT, logprobs=2))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert info(whole)["finish_reason"] == "length"
    assert info(whole)["token_usage"]["completion_tokens"] == 12
    assert "".join(info(whole)["logprobs"]["tokens"]) == whole.text


def test_a_stream_of_the_best_comes_whole_and_of_several_is_refused() -> None:
    assert list(sampled(best_of=3).stream(PROMPT)) == [sampled(best_of=3).invoke(PROMPT)]
    with pytest.raises(ConfigurationError, match="n=2"):
        list(sampled(n=2).stream(PROMPT))


def most_at_once(model: VLLM, work: Any) -> int:
    scheduler = core(model).scheduler
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, scheduler.get_request_counts()[0])
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return most


def test_a_batch_runs_at_once_and_stays_in_order(llm: VLLM) -> None:
    prompts = [f"{number} {number + 1} {number + 2}" for number in range(30, 46)]
    answers: list[str] = []
    most = most_at_once(llm, lambda: answers.extend(llm.batch(prompts, max_new_tokens=24)))
    assert most > 8
    assert [answer.split()[0] for answer in answers] == [str(number + 3) for number in range(30, 46)]


@pytest.mark.parametrize("how", [{}, {"use_beam_search": True}], ids=str)
def test_an_empty_prompt_is_refused_and_half_characters_are_not(llm: VLLM, how: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="prompt"):
        llm.invoke("", **how)
    assert llm.invoke("1 2 \ud83d", **how) == llm.invoke("1 2 \ufffd", **how)
    assert llm.get_token_ids("\ud83d") == llm.get_token_ids("\ufffd")


def test_one_refused_prompt_ends_the_batch_and_not_the_engine(llm: VLLM) -> None:
    with pytest.raises(RequestError, match="8192"):
        llm.batch([COUNT, " word" * 9000])
    assert llm.invoke(COUNT)


# -- the engine ---------------------------------------------------------------------------------------------


def test_an_unknown_engine_argument_names_the_closest() -> None:
    model = VLLM(vllm_kwargs={"gpu_memory_utilisation": 0.5})
    with pytest.raises(ConfigurationError, match="gpu_memory_utilization"):
        model.invoke(COUNT)


def test_more_cards_than_there_are_is_refused_before_loading() -> None:
    stages: list[str] = []
    model = VLLM(tensor_parallel_size=8, on_stage=stages.append)
    with pytest.raises(EngineStartError, match=r"tensor parallel size \(8\)"):
        model.invoke(COUNT)
    assert "warming up" not in stages


def test_engine_arguments_reach_the_engine(tmp_path: Any) -> None:
    """One engine with all of them; its configuration is vLLM's own."""
    arguments = {"max_model_len": 64, "kv_cache_memory_bytes": 64 << 20, "max_num_seqs": 4, "max_logprobs": 3}
    with VLLM(
        temperature=0,
        max_new_tokens=4,
        dtype="bfloat16",
        download_dir=str(tmp_path),
        trust_remote_code=True,
        vllm_kwargs={**arguments, "seed": 3},
    ) as model:
        assert model.start().max_model_len == 64
        made = config(model)
        assert str(made.model_config.dtype) == "torch.bfloat16"
        assert made.load_config.download_dir == str(tmp_path)
        assert made.scheduler_config.max_num_seqs == 4
        assert made.model_config.trust_remote_code is True
        assert made.model_config.seed == 3
        assert made.parallel_config.tensor_parallel_size == 1
        with pytest.raises(RequestError, match="max allowed: 3"):
            model.invoke(COUNT, logprobs=5)
        assert model.invoke(COUNT)
    with pytest.raises(EngineClosedError):
        model.invoke(COUNT)


# -- with a chat model --------------------------------------------------------------------------------------


def test_a_chat_model_shares_engine_and_settings(llm: VLLM) -> None:
    base = VLLM(temperature=0, max_new_tokens=5, stop=["zebra"], ignore_eos=True)
    chat = ChatVLLM(llm=base)
    assert (chat.temperature, chat.max_tokens, chat.stop, chat.ignore_eos) == (0, 5, ["zebra"], True)
    answer = chat.invoke("Hello!")
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 5
    assert chat._session.engine() is base._session.engine() is llm._session.engine()
    base.close()
    assert chat.invoke("Hello!", max_tokens=3).usage_metadata
    chat.close()
    assert llm.invoke(COUNT)  # each gave back its own hold only


# -- over HTTP ----------------------------------------------------------------------------------------------


def test_the_same_over_http(vllm_server: VLLMServer) -> None:
    here = VLLM(temperature=0, max_new_tokens=8, dtype="float32")
    with VLLM(base_url=vllm_server.base_url, api_key=KEY, temperature=0, max_new_tokens=8) as there:
        assert there.invoke(COUNT) == here.invoke(COUNT)
        assert "".join(there.stream(COUNT)) == here.invoke(COUNT)
        assert there.invoke(COUNT, stop=["14"]) == " 13 "
        assert there.get_token_ids(COUNT) == here.get_token_ids(COUNT)
        assert len(generations(there, best_of=4, n=2, temperature=1.0)) == 2
        [beam] = generations(there, use_beam_search=True, temperature=1.0)
        [same] = generations(VLLM(max_new_tokens=8, use_beam_search=True, dtype="float32"))
        assert beam.text == same.text
        assert there.invoke("1 2 \ud83d") == here.invoke("1 2 \ufffd")
        for refused in ("", " word" * 9000):
            with pytest.raises(AgentError, match=r"prompt|8192"):
                there.invoke(refused)
