"""From the steps of an engine to R(k), the mean latency while k calls are always in flight.

Four things have to be settled:

1. **Prompts per step.** One prompt per step is right while k ≤ output. With more calls vLLM batches prompts, up to
   `--max-num-batched-tokens`. In the steady state a call stays for `output` steps, so n = ⌈b/output⌉ prompts join per
   step, and no more than P = budget // (input + output − 1) can, because each of them keeps output − 1 decodes running.
   If one prompt alone exceeds the budget, P = 1: chunking splits the step and leaves the sum about the same.
2. **Calls that wait.** So at most P · output calls run; the others wait in the engine's queue. The tool is asked for
   the batch that runs, b = min(k, P · output), and the cycle is stretched by k/b.
3. **The first token.** A prompt that arrives waits for the step in progress, then for the prompts before it, then for
   its own step; before it all comes the delay per layer of `correction`, which takes no GPU time from other calls. The
   step in progress counts as a decode-only one: the work on prompts in it is there however many calls wait. For the
   same reason the wait for other prompts lengthens no call: in the steady state every other call's prompt is computed
   once while a call is there, be it before or after its first token. It only moves time from `tpot` to `ttft`. With ρ
   the part of the time that goes to prompts, and P what one group that shares a step adds to it, it is ρ/(2(1−ρ)) · P
   as in a queue with constant service (M/D/1), and at most half of the others and all that can be moved.
4. **Little's law.** In a closed loop throughput · R(k) = k, and the engine completes b calls per cycle, so R(k) cannot
   be less than k/b · cycle. Hence

       R(k) = max(ttft + tpot · (output − 1), k/b · (mixed steps · mixed step + decode-only steps · decode-only step)).

Written are `latency` = R(k), `tpot`, the mean step of a cycle (of one call the decode-only step) without the waits of
point 3, and `ttft` = R(k) − tpot · (output − 1), which thus includes all waiting. For output 1 there is no decode:
b = n = min(k, budget // input) prompts form one step, R(k) is the time to prefill k prompts back to back, and `ttft` is
`latency`. Everything is the steady state: the burst with which a benchmark begins is not in it.

Calls of several sizes run at once in reality, and share their steps. R(k) is nearly linear in the two token counts and
their products, so the mean over calls of what each size would take among its own kind stands for it.

A series ends at the first concurrency that does not fit into memory. Tables of kernels have outliers (an all-reduce of
16 KiB, say), so R(k) is made nondecreasing by a running maximum, and `ttft` and `tpot` of a raised point grow by the
same factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scepsy.errors import ScepsyError
from scepsy.profiling.estimating.correction import FITTED, Correction, corrected
from scepsy.profiling.estimating.estimator import Ask, Estimator, Load, Steps
from scepsy.profiling.estimating.mixes import Kind, Mix
from scepsy.profiling.estimating.products import Product

CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""The k at which R(k) is taken."""
MOST_BUSY = 0.99
"""Above this part of the time on prompts the queue is as long as the closed loop lets it be."""


class Times(NamedTuple):
    """What one call takes, in seconds.

    Attributes:
        latency: R(k).
        ttft: time to the first token.
        tpot: time per further token; 0 if there is none.
    """

    latency: float
    ttft: float
    tpot: float


class Point(NamedTuple):
    """One point of the closed-loop curve, in seconds; `tpot` is None for calls of one output token."""

    concurrency: int
    latency: float
    ttft: float
    tpot: float | None


@dataclass(frozen=True)
class Curve:
    """The curve of one instance under one mix.

    Attributes:
        tp: tensor-parallel degree.
        mix: the calls.
        points: rising concurrency; none if not even one call fits.
        raised: by how much (relative) the running maximum raised its points.
    """

    tp: int
    mix: Mix
    points: tuple[Point, ...]
    raised: tuple[float, ...]


def running(concurrency: int, kind: Kind, budget: int) -> Load:
    """Split k calls into those that run and those that wait (points 1 and 2 of the module's docstring).

    Args:
        concurrency: calls in flight, k.
        kind: tokens per call.
        budget: tokens per engine step.

    Returns:
        The load of b = min(k, P · output) calls, ⌈b / output⌉ of whose prompts join per step.
    """
    most = max(1, budget // (kind.input + kind.output - 1))
    batch = min(concurrency, most * kind.output)
    return Load(kind.input, kind.output, batch, -(-batch // kind.output))


def per_token(load: Load, steps: Steps) -> float:
    """Return the seconds per further token: the mean step, of one call the decode-only step; 0 if there is none."""
    if load.output == 1:
        return 0.0
    if load.batch == 1:
        return steps.decode
    return duration(steps) / (steps.mixed_steps + steps.decode_steps)


def duration(steps: Steps) -> float:
    """Return the seconds in which every call of the batch is served once."""
    return steps.mixed_steps * steps.mixed + steps.decode_steps * steps.decode


def wait_for_prompts(load: Load, steps: Steps) -> float:
    """Return the seconds that a call waits for the prompts before it (point 3 of the module's docstring)."""
    if load.batch == load.prompts or load.output == 1:  # no other call runs
        return 0.0
    prompt = max(0.0, steps.mixed - steps.decode)
    busy = min(MOST_BUSY, steps.mixed_steps * prompt / duration(steps))
    others = min(busy / (2 * (1 - busy)), (load.batch / load.prompts - 1) / 2)
    return min(others * prompt, max(0.0, per_token(load, steps) - steps.decode) * (load.output - 1))


def times(concurrency: int, load: Load, steps: Steps, delay: float) -> Times:
    """Return what a call takes while k are in flight (points 3 and 4 of the module's docstring).

    Args:
        concurrency: calls in flight, k.
        load: those that run.
        steps: the steps that serve them once.
        delay: seconds that each call waits for the host before its first token.
    """
    further = load.output - 1
    in_progress = steps.decode if load.batch > load.prompts else 0.0
    decoding = per_token(load, steps) * further
    latency = max(delay + in_progress + steps.mixed + decoding, duration(steps) * concurrency / load.batch)
    decoding -= wait_for_prompts(load, steps)
    return Times(latency, latency - decoding, decoding / further if further else 0.0)


def curve(ask: Ask, tp: int, mix: Mix, budget: int, layers: int, correction: Correction = FITTED) -> Curve:
    """Walk up the concurrencies until memory rules the next one out.

    Args:
        ask: the tool, bound to an instance.
        tp: tensor-parallel degree of that instance.
        mix: the calls; of several kinds the mean over calls is taken, and memory is checked for the mean size.
        budget: tokens per engine step.
        layers: layers of the model.
        correction: what the steps of the tool leave out.
    """
    points: list[Point] = []
    raised: list[float] = []
    highest = 0.0
    for concurrency in CONCURRENCIES:
        if not ask(running(concurrency, mix.mean.kinds[0], budget)).fits:
            break
        raw, tpot = _mean(ask, concurrency, mix, budget, layers, correction)
        if raw < highest:
            raised.append(highest / raw - 1)
        highest = max(highest, raw)
        tpot *= highest / raw
        ttft = highest - tpot * (mix.output - 1)
        points.append(Point(concurrency, highest, ttft, tpot if mix.output > 1 else None))
    return Curve(tp, mix, tuple(points), tuple(raised))


def _mean(
    ask: Ask, concurrency: int, mix: Mix, budget: int, layers: int, correction: Correction
) -> tuple[float, float]:
    """Return R(k) as the mean over calls, and the time per further token as the mean over tokens."""
    latency = decode = further = 0.0
    for kind in mix.kinds:
        load = running(concurrency, kind, budget)
        one = times(concurrency, load, corrected(load, ask(load), correction), correction.layer * layers)
        latency += kind.weight * one.latency
        decode += kind.weight * one.tpot * (kind.output - 1)
        further += kind.weight * (kind.output - 1)
    return latency, decode / further if further else 0.0


def spread(curve: Curve, equal: Curve) -> tuple[float, float] | None:
    """Return by how much (relative, least and most) R(k) differs from that of calls of the mean size.

    Args:
        curve: of calls of several sizes.
        equal: of calls of their mean size, on the same instance.

    Returns:
        None where all calls are of one size.
    """
    if len(curve.mix.kinds) == 1 or not curve.points:
        return None
    ratios = [a.latency / b.latency - 1 for a, b in zip(curve.points, equal.points, strict=True)]
    return min(ratios), max(ratios)


def curves_of(
    tool: Estimator, model: str, product: Product, degrees: Sequence[int], mixes: Sequence[Mix]
) -> tuple[list[Curve], list[tuple[float, float]]]:
    """Return the curves that have points, and how far calls of several sizes differ from calls of the mean size.

    Raises:
        ScepsyError: the model fits at none of the degrees.
    """
    architecture = tool.architecture(model)
    curves, spreads = [], []
    for tp in (tp for tp in degrees if architecture.attention_heads % tp == 0):
        ask = tool.instance(model, product, tp)
        for mix in mixes:
            one, equal = (curve(ask, tp, m, product.budget, architecture.layers) for m in (mix, mix.mean))
            curves += [one] if one.points else []
            between = spread(one, equal)
            spreads += [between] if between else []
    if not curves:
        raise ScepsyError(f"{model} does not fit into the memory of {product.name} at any of these degrees")
    return curves, spreads


def summary(curves: Sequence[Curve], spreads: Sequence[tuple[float, float]]) -> str:
    """Return one line on curves: their degrees, their points, and how far sizes of calls matter."""
    degrees = ", ".join(str(tp) for tp in dict.fromkeys(one.tp for one in curves))
    text = f"{len(curves)} series (TP {degrees}), {sum(len(one.points) for one in curves)} points"
    if spreads:
        least, most = min(low for low, _ in spreads), max(high for _, high in spreads)
        text += f"; the sizes of the recorded calls change latencies by {least:+.1%} to {most:+.1%} against their means"
    return text
