"""The planner beside published vLLM logs: weights, KV tokens, and the whole prediction.

    python -m benchmarks.fit [--json] [--rows]

Seconds, on the CPU, without vLLM. The rows and their sources are in ``fit_reports.toml``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.catalogue.attention import CacheOptions, layer_caches
from agent.catalogue.caches import divide
from agent.catalogue.card_names import find_card
from agent.catalogue.cards import GIB, Card, with_free
from agent.catalogue.case import resolve
from agent.catalogue.estimate import Estimate, estimate, weights_of
from agent.catalogue.fetch import ModelSource, find_source
from agent.catalogue.shapes import read_shape
from agent.catalogue.weights import Weights

_QWEN3_4B = find_source("Qwen/Qwen3-4B").config
_LLAMA = find_source("meta-llama/Llama-3.1-8B-Instruct").config
# Models of the reports that the catalogue does not have.
OTHERS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-4B-Thinking-2507": {**_QWEN3_4B, "max_position_embeddings": 262_144},
    "meta-llama/Meta-Llama-3-8B": {**_LLAMA, "max_position_embeddings": 8192},
    "Qwen/Qwen3-235B-A22B": {
        **find_source("Qwen/Qwen3-30B-A3B").config,
        "hidden_size": 4096,
        "num_hidden_layers": 94,
        "num_attention_heads": 64,
        "intermediate_size": 12_288,
        "moe_intermediate_size": 1536,
    },
    "openai/gpt-oss-120b": {
        **find_source("openai/gpt-oss-20b").config,
        "num_hidden_layers": 36,
        "num_local_experts": 128,
    },
}


@dataclass(frozen=True)
class Row:
    """One report and what the planner says about it."""

    report: dict[str, Any]
    estimate: Estimate

    @property
    def logged(self) -> dict[str, Any]:
        return self.report["logged"]  # type: ignore[no-any-return]

    @property
    def quantized(self) -> bool:
        return self.estimate.case.quantization is not None

    def weights_error(self) -> float | None:
        """Share by which the weights are off, beyond what the log's own rounding hides."""
        logged = self.logged.get("weights")
        if logged is None:
            return None
        hidden = 0.5 * 10 ** -self.report.get("digits", 2)
        off = abs(self.estimate.weights.size / GIB - logged)
        return max(0.0, off - hidden) / logged  # type: ignore[no-any-return]

    def tokens_error(self, *, rounded: bool = True) -> float | None:
        """Share by which the tokens are off, given the cache that the log names.

        A cache of «0.93 GiB» may be 0.5 % larger or smaller; with ``rounded``, that does not count.
        """
        logged, given = self.logged, self.logged.get("kv")
        if "blocks" in self.report:
            sizes = [self.report["blocks"] * self.estimate.cache.block_bytes]
        elif given is None or given <= 0 or not logged.keys() & {"tokens", "concurrency"}:
            return None
        else:
            hidden = 0.005 if rounded and round(given, 2) == given else 0.0
            sizes = [round((given + shift) * GIB) for shift in (-hidden, hidden)]
        if "tokens" not in logged:
            found = [self.estimate.cache.concurrency(size) for size in sizes]
            return _distance(found, logged["concurrency"], hidden=0.005)
        return _distance([float(self._tokens(size)) for size in sizes], logged["tokens"])

    def _tokens(self, size: int) -> int:
        cache = self.estimate.cache
        if self.report.get("formula") != "old":
            return cache.tokens(size)
        block = min(layer.block_size for group in cache.groups for layer in group)
        return cache.blocks(size) // len(cache.groups) * block

    def measured_tokens(self) -> float | None:
        """Tokens of the log, or those that its gibibytes hold."""
        logged = self.logged
        if self.report.get("end_to_end", True) is False or (not logged["starts"] and "kv" not in logged):
            return None
        if logged.get("tokens"):
            return float(logged["tokens"])
        if logged.get("kv", 0) > 0:
            return float(self.estimate.cache.tokens(round(logged["kv"] * GIB)))
        return None

    def predicted_tokens(self, end: str) -> float:
        return float(self.estimate.cache.tokens(max(0, self.estimate.left(end))))

    def rest_gib(self) -> float | None:
        """What vLLM took beside weights and cache."""
        tokens = self.measured_tokens()
        if tokens is None:
            return None
        cache = self.estimate.cache
        kv = tokens / cache.demand.max_model_len * cache.blocks_per_request * cache.block_bytes
        weights = self.logged.get("weights", self.estimate.weights.size / GIB)
        return self.estimate.budget / GIB - weights - kv / GIB  # type: ignore[no-any-return]


def _distance(found: list[float], logged: float, *, hidden: float = 0.0) -> float:
    """How far ``logged`` lies from what was found, as a share of it."""
    return max(0.0, min(found) - logged - hidden, logged - max(found) - hidden) / logged


def rows() -> list[Row]:
    """All reports with their estimates."""
    data = tomllib.loads((Path(__file__).parent / "fit_reports.toml").read_text())
    return [Row(report, _estimate(report)) for report in data["reports"]]


def _estimate(report: dict[str, Any]) -> Estimate:
    options = dict(report["options"])
    name = report["model"]
    source = ModelSource(name, OTHERS[name], "test") if name in OTHERS else find_source(name, offline=True)
    base = find_card(report["gpu"]) if "gpu" in report else Card(f"{report['total']} GiB", 0.0, 120)
    card = with_free(replace(base, total_gib=report["total"]), options.pop("free_gib", None))
    if report.get("graphs") == "outside":
        options["enforce_eager"] = True
    found = estimate(resolve(source, card, **options))
    if report.get("profile") == "skipped":  # the encoder is loaded all the same
        running = replace(found.case.running, images=True)
        found = replace(found, weights=weights_of(replace(found.case, running=running)))
    if "weights" in report:
        found = replace(found, weights=Weights(round(report["weights"] * GIB), 0.003, "the log"))
    if "state_dtype" in report:
        given = CacheOptions(
            found.case.running.dtype, found.case.cache_dtype, state_dtype=report["state_dtype"]
        )
        caches = layer_caches(read_shape(source.config), given)
        found = replace(found, cache=divide(caches, found.cache.demand))
    return found


def starts(row: Row) -> bool:
    """Whether the planner says that vLLM starts, by the middle of the band."""
    found = row.estimate
    if "kv" in row.report:
        return found.cache.starts(round(row.report["kv"] * GIB))
    free = found.case.card.free_gib
    if free is not None and free * GIB < found.budget:
        return False
    return found.starts("mid")


def figures(all_rows: list[Row], use: str) -> dict[str, Any]:
    """The figures of the rows of one use."""
    chosen = [row for row in all_rows if use in (row.report["use"], "all")]
    weights = {row.report["id"]: (row, error) for row in chosen if (error := row.weights_error()) is not None}
    text = [e for r, e in weights.values() if not r.quantized and not r.estimate.case.shape.multimodal]
    rest = [e for r, e in weights.values() if r.quantized or r.estimate.case.shape.multimodal]
    tokens = [(r, error) for r in chosen if (error := r.tokens_error()) is not None]
    single = [e for r, e in tokens if r.estimate.case.running.tensor_parallel_size == 1]
    raw = [error for r, _ in tokens if (error := r.tokens_error(rounded=False)) is not None]
    several = [e for r, e in tokens if r.estimate.case.running.tensor_parallel_size > 1]
    whole = [(r, t) for r in chosen if (t := r.measured_tokens()) is not None]
    inside = [r.predicted_tokens("low") <= t <= r.predicted_tokens("high") for r, t in whole]
    off = [abs(r.predicted_tokens("mid") / t - 1) for r, t in whole]
    told = [
        starts(r) == r.logged["starts"]
        for r in chosen
        if r.report.get("end_to_end", True) or "kv" in r.report
    ]
    return {
        "rows": len(chosen),
        "weights_text": _summary(text),
        "weights_rest": _summary(rest),
        "tokens_from_gib": _summary(single),
        "tokens_from_gib_tp": _summary(several),
        "tokens_from_gib_unrounded": _summary(raw),
        "end_to_end": {
            "rows": len(whole),
            "inside": sum(inside) / len(inside) if inside else None,
            "median_off": statistics.median(off) if off else None,
            "outside": [r.report["id"] for (r, _), held in zip(whole, inside, strict=True) if not held],
        },
        "starts": {"rows": len(told), "right": sum(told) / len(told) if told else None},
    }


def _summary(errors: list[float]) -> dict[str, Any]:
    if not errors:
        return {"rows": 0}
    return {"rows": len(errors), "median": statistics.median(errors), "worst": max(errors)}


def describe(row: Row) -> str:
    """One row for people."""

    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.2%}"

    tokens = row.measured_tokens()
    rest = row.rest_gib()
    band = row.estimate.rest_gib
    predicted = [row.predicted_tokens(end) for end in ("low", "mid", "high")]
    off = "" if tokens is None else f"{predicted[1] / tokens - 1:+.1%}"
    held = "" if tokens is None else ("in" if predicted[0] <= tokens <= predicted[2] else "OUT")
    judged = row.report.get("end_to_end", True) or "kv" in row.report
    told = "WRONG" if judged and starts(row) != row.logged["starts"] else ""
    measured = "" if rest is None else f"{rest:.2f} in {band.low:.2f} {band.mid:.2f} {band.high:.2f}"
    cells = (row.report["id"], row.report["use"], row.report["model"][:34], share(row.weights_error()))
    return (
        "{:9} {:9} {:34} {:>6} ".format(*cells)
        + f"{share(row.tokens_error()):>6} {measured:>24} {off:>7} {held} {told}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", action="store_true", help="show every row")
    options = parser.parse_args()
    found = rows()
    if options.rows:
        print(
            "row       use       model                              weights tokens  rest in low mid high off"
        )
        print(*map(describe, found), sep="\n")
    result = {use: figures(found, use) for use in ("calibrate", "test", "all")}
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for use, figure in result.items():
        print(f"\n{use}: {figure['rows']} rows")
        for name in (
            *("weights_text", "weights_rest"),
            *("tokens_from_gib", "tokens_from_gib_tp", "tokens_from_gib_unrounded"),
        ):
            one = figure[name]
            if one["rows"]:
                print(
                    f"  {name:26} {one['rows']:3} rows, median {one['median']:.3%}, worst {one['worst']:.3%}"
                )
        end = figure["end_to_end"]
        if end["rows"]:
            print(
                f"  end to end                 {end['rows']:3} rows, {end['inside']:.0%} inside the band, ",
                end="",
            )
            print(
                f"middle {end['median_off']:.1%} off in the median; "
                f"outside: {', '.join(end['outside']) or 'none'}"
            )
        print(
            f"  starts or not              {figure['starts']['rows']:3} rows, "
            f"{figure['starts']['right']:.0%} right"
        )


if __name__ == "__main__":
    main()
