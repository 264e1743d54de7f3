"""What the log of vLLM says: how far a start is, and why it ended. The lines are vLLM 0.32's own."""

from __future__ import annotations

import pytest

from agent.serving.output import StartReader, failure, failure_line, plain, stage_line, worth_showing

GPU_LOG = """\
[vllm-agent] stage: importing
[vllm-agent] stage: checking flags
[vllm-agent] stage: loading
(APIServer pid=1) WARNING 11-24 23:12:02 [vllm.py:1703] Enforce eager set, disabling torch.compile, CUDAGraphs
(EngineCore pid=2) INFO 11-24 23:12:06 [gpu_model_runner.py:68] Starting to load model Qwen/Qwen3-8B...
Loading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]
Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01,  1.39it/s]
(EngineCore pid=2) INFO 11-24 23:12:08 [default_loader.py:501] Loading weights took 1.12 seconds
(EngineCore pid=2) INFO 11-24 23:12:10 [backends.py:1] Dynamo bytecode transform time: 5.05 s
Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  40%|####  | 20/51
(EngineCore pid=2) INFO 11-24 23:12:11 [core.py:402] init engine (profile, create kv cache) took 1.95 s
(APIServer pid=1) INFO 11-24 23:12:12 [entry.py:140] Starting vLLM server on http://127.0.0.1:8123
INFO:     Application startup complete."""


def test_the_stages_of_a_start_are_read_in_their_order() -> None:
    reader, seen = StartReader(), []
    for line in GPU_LOG.splitlines():
        if reader.feed(line):
            seen.append(str(reader.stage))
    assert seen == [
        "checking flags",
        "loading",
        "loading weights, 0 %",
        "loading weights, 50 %",
        "warming up",
        "compiling",
        "capturing graphs, 40 %",
        "opening the server",
    ]


def test_the_bar_never_goes_back() -> None:
    reader = StartReader()
    shares = [reader.stage.share]
    for line in GPU_LOG.splitlines():
        reader.feed(line)
        shares.append(reader.stage.share)
    assert shares == sorted(shares)
    assert 0.9 < shares[-1] <= 1.0


def test_the_root_of_a_failure_is_found_behind_its_consequences() -> None:
    log = """\
(EngineCore pid=9) ERROR 11-24 23:12:06 [core.py:1] EngineCore failed to start.
(EngineCore pid=9) ERROR 11-24 23:12:06 [core.py:1] Traceback (most recent call last):
(EngineCore pid=9) ERROR 11-24 23:12:06 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB.
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"""
    found = failure([*log.splitlines(), failure_line("EngineStartError", log.splitlines()[-1])])
    assert found is not None
    assert found.message == "torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB."


def test_our_own_last_word_goes_before_what_is_read_from_tracebacks() -> None:
    found = failure(["ValueError: x", failure_line("ConfigurationError", "no flag --x\nsecond line")])
    assert found is not None
    assert (found.kind, found.message) == ("ConfigurationError", "no flag --x\nsecond line")


def test_a_log_without_an_error_gives_none() -> None:
    assert failure(GPU_LOG.splitlines()) is None


@pytest.mark.parametrize(
    ("line", "shown", "text"),
    [
        ("(APIServer pid=1) WARNING 11-24 23:12:02 [a.py:1] Slow.", True, "Slow."),
        ("ERROR 11-24 23:12:02 [a.py:1] Broken.", True, "Broken."),
        ("(APIServer pid=1) INFO 11-24 23:12:02 [a.py:1] Fine.", False, "Fine."),
        ("INFO:     Application startup complete.", False, "INFO:     Application startup complete."),
    ],
)
def test_only_what_is_wrong_is_shown_of_a_server_that_runs(line: str, shown: bool, text: str) -> None:
    assert (worth_showing(line), plain(line)) == (shown, text)


def test_an_unknown_stage_of_ours_is_shown_where_it_stands() -> None:
    reader = StartReader()
    reader.feed(stage_line("loading"))
    assert reader.feed(stage_line("thinking"))
    assert reader.stage.name == "thinking"
