"""Estimates the example profiles from AIConfigurator's silicon tables.

Nothing here runs on a GPU. AIConfigurator (`aiconfigurator-core`, Apache-2.0) ships latencies of single kernels
measured on real cards and a model of how vLLM schedules them; this script asks it for the closed-loop curve R(k) of
every model, product, tensor-parallel degree and token mix, and writes one `Profile` document per model and product. The
package is 600 MB, so it is an optional extra and is imported only when the script runs.

How each figure comes about
---------------------------

The tool's `run_agg` takes a batch b of equal calls and a number of prompt tokens per engine step (`ctx_tokens`). It
returns the latency of a *mixed* step (those prompt tokens, and the decodes of the other calls) and of a *decode-only*
step (all b calls), and counts both kinds: in one cycle all b calls are served once. From that it derives

* `tpot`: the mean step of a cycle (at b = 1 the decode-only step);
* `ttft` = (mixed step + 0.8 ms per layer) · (1 + log2(b)/8), where the constant and the factor, which stands for the
  wait for other prompts, are NVIDIA's fit to end-to-end vLLM runs, not kernel times;
* `request_latency` = ttft + tpot · (output − 1).

To turn this into R(k), the mean latency while k calls are always in flight, four things have to be settled:

1. **Prompts per step.** One prompt per step (`ctx_tokens = input`) is the tool's own assumption for vLLM, and right
   while k ≤ output. With more calls vLLM batches prompts, up to `--max-num-batched-tokens` (a server's default is 8192
   on H100 and 2048 on A100, `EngineArgs.get_batch_defaults`). In the steady state a call stays for `output` steps, so
   n = ⌈b/output⌉ prompts join per step, and no more than P = budget // (input + output − 1) can, because each of them
   keeps output − 1 decodes running. If one prompt alone exceeds the budget, P = 1: chunking splits the step and leaves
   the sum about the same.
2. **Calls that wait.** So at most P · output calls run; the others wait in the engine's queue. The tool is asked for
   the batch that runs, b = min(k, P · output), and the cycle is stretched by k/b.
3. **Waiting in groups.** The n prompts of a step do not wait for each other, so the factor in `ttft` is taken for the
   b/n groups. With one prompt per step this is the tool's own figure.
4. **Little's law.** In a closed loop throughput · R(k) = k, and the engine completes b calls per cycle, so R(k) cannot
   be less than k/b · cycle. The tool's `request_latency` ignores this (its `seq/s` does not, but is 0 at output 1), and
   is several times too low where prefill is the bottleneck. Hence

       R(k) = max(request_latency, k/b · (mixed steps · mixed step + decode-only steps · decode-only step)).

   The constant in `ttft` is a pure delay here: it lengthens a call and takes no GPU time from the others.

Written are `latency` = R(k), `tpot` as the tool gives it, and `ttft` = R(k) − tpot · (output − 1), which thus includes
the wait for prefill. For output 1 there is no decode: b = n = min(k, budget // input) prompts form one step, R(k) is
the time to prefill k prompts back to back, and `ttft` is `latency` (the tool counts one phantom decode beside n > 1
prompts, about 1 ms).

A point is written only if neither of the tool's two memory checks objects: `check_oom` (the whole card) and
`check_kv_cache_oom` (what vLLM may use of it). Both are asked, because the second passes after the first has failed.
A series ends at the first concurrency that does not fit. The tables have outliers (an all-reduce of 16 KiB, say), so
R(k) is made nondecreasing by a running maximum, and `ttft` and `tpot` of a raised point grow by the same factor; the
notes in the document say how many points that moved.

Every instance gets its own backend object: the tool caches results by (input, output, batch, ctx_tokens) without the
model, so a shared one would answer for another model.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = "aiconfigurator-core"
COMMAND = "python profiling-jobs/estimate_profiles.py"
ENGINE = "vllm"
MEMORY_FRACTION = 0.9
"""Part of the card's memory that vLLM may use (its `--gpu-memory-utilization`)."""
TP_DEGREES = (1, 2, 4, 8)
CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Model(NamedTuple):
    """A model to profile.

    Attributes:
        name: Its Hugging Face id, as workflow specifications name it.
        bundled: The id under which AIConfigurator bundles its config.json (the base model's, of the same architecture).
    """

    name: str
    bundled: str


class Product(NamedTuple):
    """A GPU product and the table that stands for it.

    Attributes:
        name: The value of the `nvidia.com/gpu.product` label.
        slug: Short name, for the file name.
        system: AIConfigurator's name of the system.
        version: Engine version of the table.
        budget: Tokens per engine step, vLLM's default of `--max-num-batched-tokens` for a server on this product.
    """

    name: str
    slug: str
    system: str
    version: str
    budget: int


class Mix(NamedTuple):
    """Tokens of one call: `input` in the prompt, `output` generated, no cached prefix."""

    input: int
    output: int


MODELS = (
    Model("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
    Model("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
    Model("Qwen/Qwen3-32B", "Qwen/Qwen3-32B"),
    Model("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B"),
    Model("meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Meta-Llama-3.1-70B"),
)
PRODUCTS = (
    Product("NVIDIA-H100-80GB-HBM3", "h100", "h100_sxm", "0.24.0", 8192),
    Product("NVIDIA-A100-SXM4-80GB", "a100", "a100_sxm", "0.14.0", 2048),
)
MIXES = (Mix(256, 8), Mix(512, 1), Mix(512, 64), Mix(1024, 256), Mix(3072, 256))


@dataclass(frozen=True)
class Architecture:
    """What the planner needs to know about a model's shape; BF16 weights and KV cache throughout."""

    parameters: int
    layers: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    context_length: int


class Cycle(NamedTuple):
    """What the tool says about a batch, in milliseconds.

    Attributes:
        ttft: Time to first token.
        tpot: Time per output token after the first; 0 if there is none.
        duration: Time in which every call of the batch is served once.
    """

    ttft: float
    tpot: float
    duration: float


class Point(NamedTuple):
    """One point of the closed-loop curve, in milliseconds; `tpot` is None for calls of one output token."""

    concurrency: int
    latency: float
    ttft: float
    tpot: float | None


class Series(NamedTuple):
    """The curve of one instance under one mix, and by how much (relative) the running maximum raised its points."""

    tp: int
    mix: Mix
    points: list[Point]
    raised: list[float]


Ask = Callable[[Mix, int, int], Cycle | None]
"""Asks the tool: mix, calls running, prompts per step → a cycle, or None if that does not fit into memory."""


def parameter_count(config: Mapping[str, Any]) -> int:
    """Counts the parameters of a dense Llama- or Qwen3-like decoder.

    Per layer: the q, k, v and o projections, three matrices of the gated MLP, two RMS norms, and for Qwen3 one norm
    each over the query and key heads. Around them: the embedding, the output head unless tied to it, and a last norm.

    Args:
        config: The model's config.json.

    Returns:
        The number of parameters.
    """
    hidden, heads, kv_heads = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    head_norms = 2 * head_dim if config["model_type"] == "qwen3" else 0
    layer = attention + head_norms + 3 * hidden * config["intermediate_size"] + 2 * hidden
    embeddings = (1 if config["tie_word_embeddings"] else 2) * config["vocab_size"] * hidden
    return int(config["num_hidden_layers"] * layer + embeddings + hidden)


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """Reads an architecture from a model's config.json."""
    heads = config["num_attention_heads"]
    return Architecture(
        parameters=parameter_count(config),
        layers=config["num_hidden_layers"],
        attention_heads=heads,
        kv_heads=config["num_key_value_heads"],
        head_dim=config.get("head_dim", config["hidden_size"] // heads),
        context_length=config["max_position_embeddings"],
    )


def running(concurrency: int, mix: Mix, budget: int) -> tuple[int, int]:
    """Splits k calls into those that run and those that wait (points 1 and 2 of the module's docstring).

    Args:
        concurrency: Calls in flight, k.
        mix: Tokens per call.
        budget: Tokens per engine step.

    Returns:
        How many calls run, b = min(k, P · output), and how many prompts join per step, ⌈b / output⌉.
    """
    prompts = max(1, budget // (mix.input + mix.output - 1))
    batch = min(concurrency, prompts * mix.output)
    return batch, -(-batch // mix.output)


def queueing(groups: float) -> float:
    """Gives the factor by which waiting for other prompts lengthens the time to the first token.

    Args:
        groups: Prompts, or groups of prompts that share a step, in the running batch; up to 256.

    Returns:
        1 + log2(groups)/8, the fit of the tool's vLLM backend (`_ttft_queuing_factor`).
    """
    return 1 + math.log2(groups) / 8


def closed_loop_latency(concurrency: int, batch: int, prompts: int, mix: Mix, cycle: Cycle) -> float:
    """Gives R(k) in milliseconds (points 3 and 4 of the module's docstring).

    Args:
        concurrency: Calls in flight, k.
        batch: Those of them that run, b.
        prompts: Prompts per step, n.
        mix: Tokens per call.
        cycle: The tool's answer for the batch.

    Returns:
        max(ttft + tpot · (output − 1), k/b · cycle), with the ttft of b/n groups.
    """
    ttft = cycle.ttft * queueing(batch / prompts) / queueing(batch)
    return max(ttft + cycle.tpot * (mix.output - 1), cycle.duration * concurrency / batch)


def trace_series(ask: Ask, tp: int, mix: Mix, budget: int) -> Series:
    """Walks up the concurrencies until memory rules the next one out.

    Args:
        ask: The tool, bound to an instance.
        tp: Tensor-parallel degree of that instance.
        mix: Tokens per call.
        budget: Tokens per engine step.

    Returns:
        The curve; it has no points if not even one call fits.
    """
    series = Series(tp, mix, [], [])
    highest = 0.0
    for concurrency in CONCURRENCIES:
        batch, prompts = running(concurrency, mix, budget)
        cycle = ask(mix, batch, prompts)
        if cycle is None:
            break
        raw = closed_loop_latency(concurrency, batch, prompts, mix, cycle)
        if raw < highest:
            series.raised.append(highest / raw - 1)
        highest = max(highest, raw)
        tpot = cycle.tpot * highest / raw
        ttft = highest - tpot * (mix.output - 1)
        series.points.append(Point(concurrency, highest, ttft, tpot if mix.output > 1 else None))
    return series


def format_duration(milliseconds: float) -> str:
    """Writes a duration with four significant digits, in ms below one second and in s from there on."""
    rounded = float(f"{milliseconds:.4g}")
    return f"{rounded:.4g}ms" if rounded < 1000 else f"{rounded / 1000:.4g}s"


def notes_on(product: Product, series: Sequence[Series]) -> str:
    """Says in a few sentences how the figures came about and how far to trust them."""
    points = sum(len(one.points) for one in series)
    raised = [by for one in series for by in one.raised]
    extent = (
        f"{len(raised)} of {points} points (by at most {max(raised):.1%})" if raised else f"none of {points} points"
    )
    return (
        f"Closed loop of k equal calls at {product.budget} tokens per step and {MEMORY_FRACTION:.0%} of the memory: "
        "latency is the larger of the tool's request latency and of Little's law over its steps, ttft is latency - "
        f"tpot * (output - 1), and a running maximum over k raised {extent}. The tool's own error against 339 "
        "measured dense vLLM points is 18% for TPOT, 17% end to end and 36% for TTFT (which includes a fitted 0.8 ms "
        "per layer); GPU shares, prefix caching and the server's CPU limits are not modelled."
    )


def render_point(point: Point) -> str:
    """Renders one point as a YAML flow mapping."""
    fields = [
        f"concurrency: {point.concurrency}",
        f"latency: {format_duration(point.latency)}",
        f"ttft: {format_duration(point.ttft)}",
    ]
    if point.tpot is not None:
        fields.append(f"tpot: {format_duration(point.tpot)}")
    return "{" + ", ".join(fields) + "}"


def render_series(series: Series) -> Iterator[str]:
    """Yields the YAML lines of one series."""
    yield f"    - tp: {series.tp}"
    yield "      share: 1.0"
    yield f"      mix: {{input: {series.mix.input}, output: {series.mix.output}, cached: 0}}"
    yield "      points:"
    for point in series.points:
        yield f"        - {render_point(point)}"


def render_profile(
    name: str, model: Model, product: Product, architecture: Architecture, *, version: str, series: Sequence[Series]
) -> str:
    """Renders a Profile document; the same figures give the same bytes.

    Args:
        name: Name of the profile, which is also the file's.
        model: The model.
        product: The GPU product.
        architecture: The model's shape.
        version: Version of the tool.
        series: The curves, none of them empty.

    Returns:
        The document, with a newline at its end.
    """
    lines = [
        "# Estimated, not measured: computed from AIConfigurator's silicon tables (provenance below).",
        f"# Regenerate with: {COMMAND}",
        "apiVersion: scepsy.dev/v1alpha1",
        "kind: Profile",
        "metadata:",
        f"  name: {name}",
        "spec:",
        "  source: estimated",
        f"  model: {model.name}",
        f"  product: {product.name}",
        f"  engine: {{name: {ENGINE}, version: {product.version}}}",
        "  architecture:",
        f"    parameters: {architecture.parameters}",
        "    bytesPerParameter: 2",
        f"    layers: {architecture.layers}",
        f"    attentionHeads: {architecture.attention_heads}",
        f"    kvHeads: {architecture.kv_heads}",
        f"    headDim: {architecture.head_dim}",
        f"    contextLength: {architecture.context_length}",
        "    kvBytesPerElement: 2",
        "  provenance:",
        f"    tool: {PACKAGE} {version}",
        f"    database: {product.system}/{ENGINE}/{product.version}",
        f"    command: {COMMAND}",
        "    notes: >-",
        *textwrap.wrap(notes_on(product, series), 120, initial_indent="      ", subsequent_indent="      "),
        "  series:",
        *(line for one in series for line in render_series(one)),
    ]
    return "\n".join(lines) + "\n"


def bundled_config(model: Model) -> dict[str, Any]:
    """Reads the config.json that AIConfigurator bundles for a model."""
    folder = resources.files("aiconfigurator_core") / "model_configs"
    config: dict[str, Any] = json.loads((folder / f"{model.bundled.replace('/', '--')}_config.json").read_text("utf-8"))
    return config


def connect(model: Model, product: Product, tp: int) -> Ask:
    """Binds the tool to one instance.

    Args:
        model: The model.
        product: The GPU product.
        tp: Tensor-parallel degree.

    Returns:
        A function that asks the tool about that instance.
    """
    # The tool is an optional extra: import it only here.
    from aiconfigurator_core.sdk import common, config  # noqa: PLC0415
    from aiconfigurator_core.sdk.backends.factory import get_backend  # noqa: PLC0415
    from aiconfigurator_core.sdk.models import get_model  # noqa: PLC0415
    from aiconfigurator_core.sdk.perf_database import get_database_view  # noqa: PLC0415

    # Exactly this engine's own rows: no rows inherited from another engine or version.
    database = get_database_view(product.system, ENGINE, product.version, shared_layer=False)
    if database is None or database.version != product.version:
        raise LookupError(f"{PACKAGE} has no table {product.system}/{ENGINE}/{product.version}")
    settings = config.ModelConfig(
        tp_size=tp,
        gemm_quant_mode=common.GEMMQuantMode.bfloat16,
        kvcache_quant_mode=common.KVCacheQuantMode.bfloat16,
        fmha_quant_mode=common.FMHAQuantMode.bfloat16,
    )
    built = get_model(model.bundled, settings, ENGINE)
    backend = get_backend(ENGINE)

    def ask(mix: Mix, batch: int, prompts: int) -> Cycle | None:
        summary = backend.run_agg(
            built,
            database,
            config.RuntimeConfig(isl=mix.input, osl=mix.output, batch_size=batch),
            ctx_tokens=mix.input * prompts,
            free_gpu_memory_fraction=MEMORY_FRACTION,
        )
        if summary.check_oom() or summary.check_kv_cache_oom():
            return None
        result, steps = summary.get_result_dict(), summary.get_per_ops_data()["scheduling"]
        duration = (
            steps["num_mix_steps"] * steps["mix_step_latency_ms"]
            + steps["num_genonly_steps"] * steps["genonly_step_latency_ms"]
        )
        return Cycle(float(result["ttft"]), float(result["tpot"]) if mix.output > 1 else 0.0, float(duration))

    return ask


def estimate(model: Model, product: Product, version: str) -> tuple[str, str]:
    """Estimates one profile.

    Args:
        model: The model.
        product: The GPU product.
        version: Version of the tool.

    Returns:
        The name of the profile and the document.
    """
    architecture = architecture_of(bundled_config(model))
    series = []
    for tp in TP_DEGREES:
        if architecture.attention_heads % tp:
            continue
        ask = connect(model, product, tp)
        series += [one for mix in MIXES if (one := trace_series(ask, tp, mix, product.budget)).points]
    name = f"{model.name.rpartition('/')[2].lower()}-{product.slug}"
    return name, render_profile(name, model, product, architecture, version=version, series=series)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the profiles of every model and product.

    Args:
        arguments: Command line without the program's name; that of the process if None.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Estimate the example profiles from AIConfigurator's silicon tables.")
    default = Path(__file__).resolve().parent.parent / "examples" / "profiles"
    parser.add_argument("--out", type=Path, default=default, metavar="DIR", help="folder to write to (%(default)s)")
    out: Path = parser.parse_args(arguments).out
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        print(f"{PACKAGE} is not installed: pip install 'scepsy[estimate]'", file=sys.stderr)
        return 1
    # It warns about tables of kernels that none of these models uses.
    logging.getLogger("aiconfigurator_core").setLevel(logging.ERROR)
    out.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        for product in PRODUCTS:
            name, document = estimate(model, product, version)
            (out / f"{name}.yaml").write_text(document, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
