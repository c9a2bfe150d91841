"""A Profile document of estimated curves; the same numbers give the same bytes.

Points are written one per line, so that a table of R(k) can be read and reviewed.
"""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from scepsy.documents import Architecture
from scepsy.documents.units import significant
from scepsy.errors import ScepsyError
from scepsy.profiling.estimating.aiconfigurator import MEMORY_FRACTION
from scepsy.profiling.estimating.correction import CROSS_VALIDATED, FITTED, LEFT_OUT, POINTS, UNCORRECTED, Errors
from scepsy.profiling.estimating.curves import Curve, Point
from scepsy.profiling.estimating.products import ENGINE, Product

_UNNAMEABLE = re.compile(r"[^a-z0-9.]+|\.(?![a-z0-9])|(?<![a-z0-9])\.")
_PLAIN = re.compile(r"scepsy [A-Za-z0-9 ./_,=-]*[A-Za-z0-9]")
HEADER = "# Estimated, not measured:"
"""How every estimated profile begins."""


def profile_name(model: str, product: Product, suffix: str = "") -> str:
    """Return the name of a profile, which is also the file's: `qwen3-8b-h100`.

    Args:
        model: the model's id.
        product: the GPU product.
        suffix: what else tells it from others, such as a workflow; what no name may hold is replaced.
    """
    parts = (_UNNAMEABLE.sub("-", part.lower()).strip("-") for part in (model.rpartition("/")[2], product.slug, suffix))
    return "-".join(part for part in parts if part)[:200].rstrip("-.")


def render_profile(
    name: str,
    model: str,
    product: Product,
    architecture: Architecture,
    *,
    tool: str,
    table: str,
    command: str,
    curves: Sequence[Curve],
    trace_digest: str | None = None,
) -> bytes:
    """Render a Profile document.

    Args:
        name: its name.
        model: the model's id.
        product: the GPU product.
        architecture: the model's shape.
        tool: name and version of the tool.
        table: its tables for the product.
        command: what regenerates the document.
        curves: none of them empty.
        trace_digest: digest of the trace whose calls were estimated for.
    """
    # File names and LLM names come from strangers.
    shown = command if _PLAIN.fullmatch(command) else json.dumps(command)
    lines = [
        f"{HEADER} computed from AIConfigurator's silicon tables (provenance below).",
        f"# Regenerate with: {shown}",
        "apiVersion: scepsy.dev/v1alpha1",
        "kind: Profile",
        "metadata:",
        f"  name: {name}",
        "spec:",
        "  source: estimated",
        f"  model: {model}",
        f"  product: {product.name}",
        f"  engine: {{name: {ENGINE}, version: {product.version}}}",
        "  architecture:",
        f"    parameters: {architecture.parameters}",
        f"    bytesPerParameter: {architecture.bytes_per_parameter:g}",
        f"    layers: {architecture.layers}",
        f"    attentionHeads: {architecture.attention_heads}",
        f"    kvHeads: {architecture.kv_heads}",
        f"    headDim: {architecture.head_dim}",
        f"    contextLength: {architecture.context_length}",
        f"    kvBytesPerElement: {architecture.kv_bytes_per_element:g}",
        "  provenance:",
        f"    tool: {tool}",
        f"    database: {table}",
        f"    command: {shown}",
        *([f"    traceDigest: {trace_digest}"] if trace_digest else []),
        "    notes: >-",
        *textwrap.wrap(notes_on(product, curves), 120, initial_indent="      ", subsequent_indent="      "),
        "  series:",
        *(line for one in curves for line in _series(one)),
    ]
    return ("\n".join(lines) + "\n").encode()


def notes_on(product: Product, curves: Sequence[Curve]) -> str:
    """Say in a few sentences how the numbers were obtained and how far to trust them."""
    raised = [by for one in curves for by in one.raised]
    points = sum(len(one.points) for one in curves)
    extent = (
        f"{len(raised)} of {points} points (by at most {max(raised):.1%})" if raised else f"none of {points} points"
    )
    sizes = max(len(one.mix.kinds) for one in curves)
    calls = f"calls of {sizes} sizes that stand for the recorded ones" if sizes > 1 else "equal calls"
    return (
        f"Steady state of a closed loop of k {calls} at {product.budget} tokens per step and {MEMORY_FRACTION:.0%} of "
        f"the memory; a running maximum over k raised {extent}. Steps are the tool's x {FITTED.kernels:.3f} + "
        f"{FITTED.call * 1e6:.1f} us per running call; before the first token come {FITTED.layer * 1e3:.2f} ms per "
        f"layer, the step in progress and the prompts ahead. These constants are fitted to {POINTS} measured points of "
        "dense models on vLLM; on models or systems left out of the fit the mean error is at most "
        f"{_percent(CROSS_VALIDATED)} (the tool by itself: {_percent(UNCORRECTED)}). {LEFT_OUT} more points contradict "
        "the hardware and are left out. GPU shares, prefix caching and the server's CPU limits are not modelled."
    )


def _percent(errors: Errors) -> str:
    return f"{errors.latency:.1%} end to end, {errors.ttft:.1%} for TTFT and {errors.tpot:.1%} for TPOT"


def _series(curve: Curve) -> Iterator[str]:
    yield f"    - tp: {curve.tp}"
    yield "      share: 1.0"
    yield f"      mix: {{input: {significant(curve.mix.input)}, output: {significant(curve.mix.output)}, cached: 0}}"
    yield "      points:"
    for point in curve.points:
        yield f"        - {_point(point)}"


def _point(point: Point) -> str:
    fields = [
        f"concurrency: {point.concurrency}",
        f"latency: {_duration(point.latency)}",
        f"ttft: {_duration(point.ttft)}",
    ]
    if point.tpot is not None:
        fields.append(f"tpot: {_duration(point.tpot)}")
    return "{" + ", ".join(fields) + "}"


def _duration(seconds: float) -> str:
    """Write a duration with four significant digits, in ms below one second and in s from there on."""
    rounded = float(f"{seconds * 1e3:.4g}")
    return f"{rounded:.4g}ms" if rounded < 1000 else f"{rounded / 1000:.4g}s"


def regenerating_command(model: str, product: Product, degrees: str | None, options: Sequence[str]) -> str:
    """Return the command that regenerates a document, without paths of this machine."""
    words = ["scepsy", "profile", "estimate", model, "--product", product.name]
    return shlex.join([*words, *(["--tp", degrees] if degrees else []), *options])


def check_replaceable(path: Path) -> None:
    """Check that a file is an estimate, if it exists: measurements are never replaced.

    Raises:
        ScepsyError: it is something else, or cannot be read.
    """
    if not path.exists():
        return
    try:
        first = path.read_bytes()[: len(HEADER.encode())]
    except OSError as error:
        raise ScepsyError(f"cannot read {path}: {error.strerror or error}") from error
    if first != HEADER.encode():
        raise ScepsyError(
            f"{path} exists and was not written by this command: it may hold measurements",
            "move it away, or name another directory with -o",
        )
