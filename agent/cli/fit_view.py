"""How a plan looks in a terminal: the verdict, a bar of the card's memory, and what to do."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from agent.cli.console import columns, print_table, printable, terminal_width

if TYPE_CHECKING:
    from agent.catalogue.bands import Band
    from agent.catalogue.fit import Fit
    from agent.catalogue.logs import Difference

_COLOURS = {"recommended": "green", "fits": "green", "may work": "yellow", "won't work": "red"}
_WIDEST = 72
_MOST_ADVICE = 6


def show_plan(plan: Fit) -> None:
    """Print a plan for people."""
    click.secho(f"{plan.model} on {_card(plan)}", bold=True)
    click.echo(
        f"{click.style(plan.verdict, fg=_COLOURS[plan.verdict], bold=True)}: {printable(plan.reasons[0])}"
    )
    for reason in plan.reasons[1:]:
        click.echo(f"  {printable(reason)}")
    click.echo()
    _bar(plan)
    click.echo()
    _numbers(plan)
    if plan.advice:
        click.echo()
        _advice(plan)
    if plan.verdict != "won't work":
        click.echo("\nStart it:")
        click.echo(_command(plan))


def _card(plan: Fit) -> str:
    cards = plan.options["tensor_parallel_size"]
    several = f"{cards} × " if cards > 1 else ""
    free = "" if plan.card.free_gib is None else f", {plan.card.free_gib:.1f} free"
    return f"{several}{plan.card.name} ({plan.card.total_gib:.2f} GiB{free})"


def _bar(plan: Fit) -> None:
    """The card's memory as one line: a letter for each part, as long as its share."""
    parts = (
        ("weights", plan.weights_gib.mid, "█", "blue"),
        ("KV cache", max(0.0, plan.kv_gib.mid), "▓", "green"),
        ("activations", plan.activations_gib.mid, "▒", "yellow"),
        ("overhead", plan.graphs_gib.mid + plan.overhead_gib.mid, "░", "magenta"),
    )
    used = sum(size for _, size, _, _ in parts)
    total = max(plan.card.total_gib, used)
    width = min(_WIDEST, terminal_width() - 2)
    line, drawn, reached = "", 0, 0.0
    for _, size, mark, colour in parts:
        reached += size
        upto = round(reached / total * width)
        line += click.style(mark * (upto - drawn), fg=colour)
        drawn = upto
    click.echo(f"▕{line}{'·' * (width - drawn)}▏")
    legend = [f"{click.style(mark, fg=colour)} {name} {size:.2f}" for name, size, mark, colour in parts]
    short = -plan.kv_gib.mid
    if short > 0:
        rest = click.style(f"{short:.2f} GiB missing of {plan.budget_gib:.2f}", fg="red")
    else:  # the share that vLLM is told to leave, and what a model without a cache does not need
        rest = f"· left {plan.card.total_gib - used:.2f} GiB"
    click.echo("  ".join((*legend, rest)))


def _numbers(plan: Fit) -> None:
    kind = ", ".join(filter(None, (plan.dtype, plan.quantization)))
    steps = f"steps of {plan.options['max_num_batched_tokens']:,} tokens"
    rows = [
        _line("weights", plan.weights_gib, "GiB", f"{kind}; {plan.weights_source}"),
        _line(
            "activations",
            plan.activations_gib,
            "GiB",
            f"{steps}, {plan.options['max_num_seqs']} requests at once",
        ),
        _line("CUDA graphs", plan.graphs_gib, "GiB", ""),
        _line("other overhead", plan.overhead_gib, "GiB", "context, libraries, fragmentation"),
    ]
    if plan.request_gib:
        token = f"{plan.kv_bytes_per_token / 1024:,.0f} KiB a token"
        each = f"{token}, {plan.request_gib:.2f} GiB a request of full length"
        rows += [
            _line("KV cache", plan.kv_gib, "GiB", each),
            _line("KV cache", plan.kv_tokens, "tokens", ""),
            _line("requests at once", plan.concurrency, "", f"of {plan.max_model_len:,} tokens"),
            _line("longest context", plan.longest, "tokens", f"of the {plan.context:,} that it is made for"),
        ]
    print_table(["", "low", "middle", "high", "", ""], rows, stretch=5)


def _line(name: str, band: Band, unit: str, told: str) -> list[str]:
    digits = 0 if unit == "tokens" else 1 if unit == "" else 2
    return [name, *(f"{value:,.{digits}f}" for value in (band.low, band.mid, band.high)), unit, told]


def _advice(plan: Fit) -> None:
    click.echo("For more room:" if plan.verdict == "fits" else "What would help:")
    rows = [
        [f"  {each.change}", each.outcome, shlex.join(each.flags)]
        for each in sorted(plan.advice, key=lambda each: not each.works)[:_MOST_ADVICE]
    ]
    wide = sum(max(columns(row[i]) for row in rows) for i in range(3)) + 4 if rows else 0
    if wide <= terminal_width():
        print_table(["  change", "outcome", "flags"], rows, stretch=1)
        return
    for change, outcome, flags in rows:  # nothing of a flag may be missing: they are there to be copied
        click.echo(f"{change}: {outcome}" + (f"\n    {flags}" if flags else ""))


def _command(plan: Fit) -> str:
    """The whole command, a flag to a line so that it can be read and copied."""
    model = "CHECKPOINT" if plan.other_checkpoint else plan.model
    lines: list[list[str]] = [["vllm", "serve", model]]
    for word in plan.arguments:
        if word.startswith("--"):
            lines.append([word])
        else:
            lines[-1].append(word)
    return " \\\n".join(f"  {'' if i == 0 else '  '}{shlex.join(line)}" for i, line in enumerate(lines))


def show_differences(differences: Sequence[Difference], failure: str | None) -> None:
    """Print what was foretold beside what a log says."""
    if failure:
        click.secho(f"vLLM gave up: {failure}", fg="red")
    rows = []
    for each in differences:
        digits = 0 if each.unit == "tokens" else 2
        band = " – ".join(f"{value:,.{digits}f}" for value in (each.predicted.low, each.predicted.high))
        error = "" if each.error is None else f"{each.error:+.1%}"
        place = "inside the band" if each.inside else "outside the band"
        middle = f"{each.predicted.mid:,.{digits}f}"
        rows.append([each.name, f"{each.logged:,.{digits}f} {each.unit}", middle, error, band, place])
    print_table(["", "logged", "foretold", "off", "band", ""], rows, stretch=5)
