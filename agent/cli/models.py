"""``models``: the models that are known, and whether one fits a card."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.console import note, print_json, print_table, printable, warn
from agent.cli.options import JSON

if TYPE_CHECKING:
    from agent.catalogue.fit import Fit
    from agent.catalogue.logs import LoggedMemory
    from agent.catalogue.models import CatalogueModel

_TASKS = (
    *("generate", "multimodal", "transcription", "pooling"),
    *("embedding", "reranker", "classification", "reward", "token-classification"),
)

GPU = click.option(
    "--gpu",
    metavar="CARD",
    help="A card (`models cards` lists them), a size such as 24GB, auto for this machine's card, or cpu. "
    "[default: RTX 5080]",
)


@click.group()
def models() -> None:
    """See the models that are known, and whether one fits a card. Nothing is loaded or downloaded."""


@models.command("list")
@click.option("--task", "-t", type=click.Choice(_TASKS), help="Only models for this.")
@click.option("--family", "-f", metavar="TEXT", help="Only models with this in their family or id.")
@click.option("--max-size", metavar="SIZE", help="At most so many parameters, for example 8B.")
@click.option("--min-size", metavar="SIZE", help="At least so many parameters.")
@click.option("--fits", is_flag=True, help="Only models that fit the card.")
@GPU
@JSON
def list_models(
    task: str | None,
    family: str | None,
    max_size: str | None,
    min_size: str | None,
    fits: bool,
    gpu: str | None,
    as_json: bool,
) -> None:
    """List the models of the catalogue, with a verdict for one card.

    \b
    Examples:
      vllm-agent models list --task generate --fits
      vllm-agent models list --family qwen --max-size 8B --gpu "RTX 4090"
    """
    from agent.catalogue.card_names import find_card
    from agent.catalogue.cards import DEFAULT_CARD
    from agent.catalogue.models import list_models as find

    card = find_card(gpu or DEFAULT_CARD)
    found = find(
        task=task, family=family, min_parameters=_parameters(min_size), max_parameters=_parameters(max_size)
    )
    plans = [(model, _plan(model, card)) for model in found]
    if fits:
        plans = [
            (model, plan)
            for model, plan in plans
            if plan is not None and plan.verdict in ("recommended", "fits")
        ]
    if as_json:
        print_json([_record(model, plan) for model, plan in plans])
        return
    if not plans:
        note("no such model in the catalogue")
        return
    print_table(
        ["model", "task", "size", "context", "weights", "requests", "verdict", "why"],
        [_row(model, plan) for model, plan in plans],
        stretch=7,
    )
    note(
        f"{len(plans)} models on {card.name} ({card.total_gib:g} GiB). «requests»: how many of 8,192 tokens "
        "(or of the model's own context, if that is less) fit at once; details: vllm-agent models fit MODEL"
    )


def _plan(model: CatalogueModel, card: Any) -> Fit | None:
    from agent.catalogue.fit import plan_fit
    from agent.errors import FitError

    try:
        return plan_fit(model.id, gpu=card, offline=True)
    except FitError:
        return None


def _record(model: CatalogueModel, plan: Fit | None) -> dict[str, Any]:
    verdict: dict[str, Any] = (
        {"verdict": None} if plan is None else {"verdict": plan.verdict, "reasons": list(plan.reasons)}
    )
    if plan is not None:
        verdict |= {"weights_gib": plan.weights_gib.to_dict(), "concurrency": plan.concurrency.to_dict()}
    return {**model.to_dict(), **verdict}


def _row(model: CatalogueModel, plan: Fit | None) -> list[str]:
    start = [model.id, model.task, size_text(model.parameters), f"{model.context:,}"]
    if plan is None:
        return [*start, "", "", "unknown", ""]
    cache = plan.kv_bytes_per_token or plan.request_gib
    requests = f"{plan.concurrency.mid:.1f}" if cache and plan.concurrency.mid else ("-" if cache else "any")
    return [*start, f"{plan.weights_gib.mid:.1f} GiB", requests, plan.verdict, _why(model, plan)]


def _why(model: CatalogueModel, plan: Fit) -> str:
    """The reason in a few words; where it fits, what else is to be known."""
    if plan.verdict in ("recommended", "fits"):
        return "; ".join(model.problems)
    return f"{-plan.kv_gib.mid:.1f} GiB missing" if plan.kv_gib.mid < 0 else plan.reasons[0]


def size_text(parameters: int | None) -> str:
    """A number of parameters for people."""
    if parameters is None:
        return "?"
    return f"{parameters / 1e9:.1f}B" if parameters >= 999_500_000 else f"{parameters / 1e6:.0f}M"


def _parameters(text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bmk]?)", text.strip().lower())
    if match is None:
        raise click.BadParameter(f"{text!r} is no size; write for example 8B or 350M")
    return float(match[1]) * {"b": 1e9, "m": 1e6, "k": 1e3, "": 1}[match[2]]


@models.command()
@JSON
def cards(as_json: bool) -> None:
    """List the cards that are known, and those of this machine.

    \b
    Example:
      vllm-agent models cards
    """
    from agent.catalogue.cards import CARDS
    from agent.catalogue.hardware import cpu, machine_cards

    here = [*machine_cards(), cpu()]
    if as_json:
        rows = [(card, True) for card in here] + [(card, False) for card in CARDS]
        print_json(
            [
                {
                    "name": c.name,
                    "total_gib": c.total_gib,
                    "free_gib": c.free_gib,
                    "capability": c.capability / 10,
                    "here": h,
                }
                for c, h in rows
            ]
        )
        return
    lines = [
        [c.name, f"{c.total_gib:.2f} GiB", "this machine", f"{c.free_gib or 0:.2f} GiB free"] for c in here
    ]
    lines += [
        [
            c.name,
            f"{c.total_gib:.2f} GiB",
            f"sm_{c.capability}",
            "from a log" if c.seen else "by its printed size",
        ]
        for c in CARDS
    ]
    print_table(["card", "memory for CUDA", "capability", "known"], lines, stretch=3)


@models.command()
@click.argument("model")
@JSON
def show(model: str, as_json: bool) -> None:
    """Show everything that the catalogue has about a model.

    \b
    Example:
      vllm-agent models show Qwen3-8B
    """
    from agent.catalogue.models import find_model

    found = find_model(model)
    if as_json:
        print_json(found.to_dict())
        return
    click.secho(found.id, bold=True)
    for name, value in found.to_dict().items():
        if value in (None, (), False, "") or name in ("id", "config", "problems", "hf_overrides"):
            continue
        text = (
            size_text(value)
            if name == "parameters"
            else f"{value:,}"
            if isinstance(value, int)
            else str(value)
        )
        click.echo(f"  {name.replace('_', ' '):<18} {printable(text)}".replace("\n", "\\n"))
    for problem in found.problems:
        click.echo(f"  {'known problem':<18} {problem}")
    click.secho("\n  config.json, as far as memory goes", dim=True)
    for name, value in found.config.items():
        if not isinstance(value, list):
            click.echo(f"  {name:<30} {value}")
    note(f"\nDoes it fit? vllm-agent models fit {found.id.rpartition('/')[2]}")


@models.command()
@click.argument("model", required=False)
@GPU
@click.option("--max-model-len", type=click.IntRange(1), help="Tokens of a request. [default: 8192]")
@click.option("--max-num-seqs", type=click.IntRange(1), help="Requests at once. [default: vLLM's]")
@click.option("--max-num-batched-tokens", type=click.IntRange(1), help="Tokens of a step. [default: vLLM's]")
@click.option("--dtype", help="[default: auto]")
@click.option(
    "--quantization", "-q", metavar="METHOD", help="What if the weights were awq, gptq, fp8, nvfp4, …?"
)
@click.option("--kv-cache-dtype", metavar="TYPE", help="auto, fp8, … [default: auto]")
@click.option(
    "--tensor-parallel-size", "--tp", type=click.IntRange(1), help="Cards that share it. [default: 1]"
)
@click.option("--gpu-memory-utilization", type=click.FloatRange(0, 1, min_open=True), help="[default: 0.9]")
@click.option("--free", "free_gib", type=float, metavar="GIB", help="Memory that is free on the card.")
@click.option("--enforce-eager", is_flag=True, help="Without CUDA graphs.")
@click.option("--text-only", is_flag=True, help="Without images (--language-model-only).")
@click.option(
    "--compare",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="LOGFILE",
    help="Compare with a log of vLLM, learn from it, and plan again. Options come from the log where it "
    "has them.",
)
@JSON
def fit(model: str | None, compare: Path | None, text_only: bool, as_json: bool, **given: Any) -> None:
    """Say whether MODEL fits a card: a directory, a name from the catalogue, or any hub id.

    \b
    Examples:
      vllm-agent models fit Qwen3-8B
      vllm-agent models fit Qwen3-8B --quantization awq --max-model-len 32768
      vllm-agent models fit ./my-model --gpu auto --compare vllm.log
    """
    from agent.catalogue.fit import plan_fit

    if not math.isfinite(given["free_gib"] or 0):  # click takes "nan" for a number
        raise click.BadParameter("must be a number of GiB", param_hint="--free")
    options = {name: value for name, value in given.items() if value not in (None, False)}
    if text_only:
        options["images"] = False
    logged = None
    if compare is not None:
        model, options, logged = _from_log(compare, model, options)
    if model is None:
        raise click.UsageError("Name a MODEL (or give --compare a log that names one).")
    plan = plan_fit(model, **options)
    if logged is None:
        _print_plan(plan, as_json)
    else:
        _print_comparison(plan, logged, model, options, as_json)


def _from_log(
    path: Path, model: str | None, options: dict[str, Any]
) -> tuple[str | None, dict[str, Any], LoggedMemory]:
    """The model, the options and the numbers of a log; what was given by hand wins."""
    from dataclasses import replace

    from agent.catalogue.card_names import find_card
    from agent.catalogue.cards import Card
    from agent.catalogue.logs import read_log

    logged = read_log(path.read_text(errors="replace"))
    known = (
        *("max_model_len", "max_num_seqs", "max_num_batched_tokens", "dtype", "kv_cache_dtype"),
        *("tensor_parallel_size", "gpu_memory_utilization", "enforce_eager"),
    )
    said = {name: logged.arguments[name] for name in known if logged.arguments.get(name) is not None}
    if logged.utilization is not None:
        said.setdefault("gpu_memory_utilization", logged.utilization)
    if logged.max_model_len is not None:
        said.setdefault("max_model_len", int(logged.max_model_len))
    if logged.batched_tokens is not None:
        said.setdefault("max_num_batched_tokens", int(logged.batched_tokens))
    options = {**said, **options}
    if logged.total_gib is not None:
        base = (
            find_card(options["gpu"])
            if "gpu" in options
            else Card("the card of the log", logged.total_gib, 120)
        )
        options["gpu"] = replace(base, total_gib=logged.total_gib, free_gib=None)
    named = logged.arguments.get("model_tag") or logged.arguments.get("model")
    return model or (str(named) if named else None), options, logged


def _print_plan(plan: Fit, as_json: bool) -> None:
    from agent.cli.fit_view import show_plan

    if as_json:
        print_json(plan.to_dict())
    else:
        show_plan(plan)


def _print_comparison(
    plan: Fit, logged: LoggedMemory, model: str, options: dict[str, Any], as_json: bool
) -> None:
    from agent.catalogue.fit import plan_fit
    from agent.catalogue.logs import calibrate, compare
    from agent.cli.fit_view import show_differences, show_plan
    from agent.errors import ConfigurationError

    differences = compare(plan, logged)
    try:
        learned = calibrate(plan, logged)
    except ConfigurationError as error:
        learned, again = None, plan
        warn(str(error))
    else:
        again = plan_fit(model, **options, calibration=learned)
    if as_json:
        print_json(
            {
                "differences": [each.to_dict() for each in differences],
                "failure": logged.failure,
                "shift_gib": None if learned is None else learned.shift_gib,
                "calibrated": again.to_dict(),
            }
        )
        return
    show_differences(differences, logged.failure)
    if learned is not None:
        more = "more" if learned.shift_gib >= 0 else "less"
        click.echo(
            f"\nThis system takes {abs(learned.shift_gib):.2f} GiB {more} beside weights and cache than "
            "usual. With that learned:\n"
        )
    show_plan(again)
