"""One LLM on instances of different shapes and numbers: latency per caller, utilisation, bandwidth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from scepsy.performance import Catalog, InstanceMemory, ServiceTimes, Stream, fit, latencies, rounds
from scepsy.performance.curves import Array
from scepsy.performance.gpu_hardware import bandwidth
from scepsy.performance.share_scaling import SHARE_MODEL
from scepsy.pipeline.load import LlmLoad

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """What one instance occupies.

    Attributes:
        product: GPU product.
        tp: tensor-parallel degree, GPUs per instance.
        tenths: share of each GPU in tenths; 10 is the whole GPU.
    """

    product: str
    tp: int
    tenths: int

    @property
    def units(self) -> int:
        """Tenths of GPUs that one instance takes."""
        return self.tp * self.tenths

    def __str__(self) -> str:
        part = "whole GPU" if self.tenths == 10 else f"share {self.tenths / 10:g}"
        return f"{self.product} TP {self.tp}, {part}"


@dataclass(frozen=True)
class InstanceModel:
    """One LLM on one shape with a cap on the memory bandwidth.

    Attributes:
        shape: the shape.
        bandwidth: cap on its part of the GPU's memory bandwidth, at which it is assumed to read while it runs.
        memory: how its memory is divided.
        limit: K, most calls that run at once: what the spec, the KV cache, the profile and the saturation point allow.
        seconds: R(n) per caller for n = 1 … K, (callers, K).
        work: per caller, seconds of an instance that one call costs at saturation, R(K)/K.
        times: per caller, the service times without a cap; `share_model` and `uncertainty` are those with the cap.
        drawn: part of the bandwidth that it reads on average while n calls run, n = 1 … K, the callers' largest; at
            most `bandwidth`.
    """

    shape: Shape
    bandwidth: float
    memory: InstanceMemory
    limit: int
    seconds: Array
    work: Array
    times: tuple[ServiceTimes, ...]
    drawn: Array


def shortage(memory: InstanceMemory, longest: int) -> str | None:
    """Return why an instance cannot hold one call in its memory; None if it can.

    Args:
        memory: the instance's.
        longest: tokens that one call may have.
    """
    if memory.kv_cache <= 0:
        missing = (-memory.kv_cache) / 2**30
        return f"the weights leave no memory for the KV cache ({missing:.1f} GiB short)"
    if memory.kv_tokens < longest:
        return f"the KV cache holds {memory.kv_tokens:,} tokens, one call may have {longest:,}"
    return None


def instance_model(load: LlmLoad, shape: Shape, catalog: Catalog, card: int) -> InstanceModel | str:
    """Return the model of one LLM on one shape without a bandwidth cap, or the reason why it cannot run there.

    Args:
        load: the LLM and its callers.
        shape: a shape whose degree is profiled for the model on the product.
        catalog: the profiles.
        card: bytes of memory of one GPU of the product.
    """
    architecture = catalog.architecture(load.llm.model)
    memory = fit(architecture, card, shape.tp, shape.tenths)
    longest = load.llm.max_model_len or architecture.context_length
    short = shortage(memory, longest)
    if short is not None:
        return short
    llm, where = load.llm, (load.llm.model, shape.product, shape.tp, shape.tenths)
    tried = catalog.unusable(*where, llm.revision, longest=longest)
    if tried is not None:
        return tried
    try:
        times = tuple(catalog.service(*where, c.mix, llm.revision) for c in load.callers)
    except KeyError:
        return f"no profile of revision {llm.revision} for such calls" if llm.revision else "no profile for such calls"
    share = [c.calls / load.calls for c in load.callers]
    tokens = sum(s * (c.demand.input.mean + c.demand.output.mean) for s, c in zip(share, load.callers, strict=True))
    limit = min(
        load.llm.max_num_seqs, int(memory.kv_tokens // max(1.0, tokens)), *(len(time.seconds) for time in times)
    )
    seconds = np.stack([time.seconds[: max(1, limit)] for time in times])
    mean = np.asarray(sum(s * caller_seconds for s, caller_seconds in zip(share, seconds, strict=True)))
    # More calls at once than at the peak of n/R(n) only make each slower: admit no more. On a plateau the first n
    # counts, independent of the last bits of the quotients.
    rate = np.arange(1, len(mean) + 1) / mean
    limit = int(np.flatnonzero(rate >= rate.max() * (1 - 1e-6))[0]) + 1
    seconds = seconds[:, :limit]
    most = bandwidth(shape.tenths / 10, shape.product)
    drawn = np.max([time.drawn[:limit] for time in times], axis=0)
    return InstanceModel(shape, most, memory, limit, seconds, seconds[:, -1] / limit, times, drawn)


def capped(model: InstanceModel, load: LlmLoad, catalog: Catalog, caps: Sequence[float]) -> list[InstanceModel]:
    """Return the same instance capped to parts of the GPU's memory bandwidth, so that others can use the rest.

    It admits as many calls as without the cap: how the engine is started must not depend on its neighbours.

    Args:
        model: the instance.
        load: the LLM and its callers.
        catalog: the profiles.
        caps: the parts, each less than it could draw.
    """
    if not caps:
        return []
    llm, limit = load.llm, model.limit
    where = (llm.model, model.shape.product, model.shape.tp, model.shape.tenths)
    times = tuple(_marked(time, model.shape.tenths) for time in model.times)
    slower = [catalog.slowdown(*where, c.mix, llm.revision, caps=caps)[:, :limit] for c in load.callers]
    capped_seconds = np.maximum.accumulate(model.seconds * np.stack(slower, axis=1), axis=2)
    # The same bytes in more time.
    drawn = (np.stack([time.drawn[:limit] for time in model.times]) * model.seconds / capped_seconds).max(axis=1)
    return [
        replace(model, bandwidth=cap, seconds=now, work=now[:, -1] / limit, times=times, drawn=np.minimum(draws, cap))
        for cap, now, draws in zip(caps, capped_seconds, drawn, strict=True)
    ]


def _marked(times: ServiceTimes, tenths: int) -> ServiceTimes:
    """Return service times marked as modelled: with a bandwidth cap they are not measured."""
    way = times.share_model or f"from the {times.source} share {tenths / 10:g}"
    if not way.startswith(SHARE_MODEL):
        way = f"{SHARE_MODEL}, {way}, held to part of the bandwidth"
    return replace(times, uncertainty=None, share_model=way)


@dataclass(frozen=True)
class Evaluation:
    """Latency, utilisation and bandwidth of B allocations of one LLM under its load.

    Attributes:
        latency: (callers, B) seconds until the last call of a group ends, mean over groups.
        utilisation: (B,) load ÷ capacity.
        bandwidth: (B,) part of a GPU's memory bandwidth that one instance draws, as its neighbours see it: on average
            over time, but for calls in groups, which reach several instances at once, while it is busy.
    """

    latency: Array
    utilisation: Array
    bandwidth: Array


def evaluate(load: LlmLoad, models: list[InstanceModel], index: Ints, replicas: Ints) -> Evaluation:
    """Evaluate allocations of one LLM, each `replicas[b]` instances of `models[index[b]]`.

    Groups of g calls spread evenly over r replicas: each gets ⌊g/r⌋ of them or one more, or some get one and the others
    none. The group ends when its largest part ends. That the parts do not meet equally busy replicas is neglected:
    against a simulation with a random but even split the prediction is 11–14 % too fast at 70 % load, with the
    gateway's balancing by least connections within 5 %.
    """
    latency, (utilisation, drawn) = np.zeros((len(load.callers), len(index))), np.zeros((2, len(index)))
    if len(index):
        limit = max(model.limit for model in models)
        share = [c.calls / load.calls for c in load.callers]
        padded = np.stack([_padded(model, share, limit) for model in models], axis=2)
        busy = np.stack([np.concatenate([m.drawn, np.full(limit - m.limit, m.drawn[-1])]) for m in models])
        limits = np.array([model.limit for model in models], dtype=np.int64)[index]
        # Similar instances together: those with less load need fewer states of the queue.
        order = np.lexsort((load.calls / replicas, limits))
        for at in range(0, len(index), _CHUNK):
            rows = order[at : at + _CHUNK]
            most = int(limits[rows].max())
            part = _evaluated(load, padded[:, :most], busy[:, :most], limits[rows], index[rows], replicas[rows])
            latency[:, rows], utilisation[rows], drawn[rows] = part.latency, part.utilisation, part.bandwidth
    return Evaluation(latency, utilisation, drawn)


_CHUNK = 512
"""Allocations that are evaluated at once: few, so that their tables stay in the processor's caches."""


def _evaluated(load: LlmLoad, padded: Array, drawn: Array, limits: Ints, index: Ints, replicas: Ints) -> Evaluation:
    """Evaluate some allocations; `padded` is R(n), (callers, K, models), `drawn` what each draws then, (models, K)."""
    streams: list[Stream] = []
    parts: list[tuple[int, float, Ints]] = []
    for c, caller in enumerate(load.callers):
        seconds = np.take(padded[c], index, axis=1)
        for size, frequency in caller.demand.groups:
            low, rest = size // replicas, size % replicas
            rate = caller.rate * frequency
            low_id = len(streams)
            few, fewer = np.maximum(low, 1), np.where(low > 0, rate * (replicas - rest) / replicas, 0.0)
            streams.append(Stream(seconds, few, fewer, rounds(seconds, few, limits)))
            if (rest > 0).any():
                streams.append(Stream(seconds, low + 1, rate * rest / replicas, rounds(seconds, low + 1, limits)))
            parts.append((c, frequency, np.where(rest > 0, len(streams) - 1, low_id)))
    per_stream, utilisation, busy = latencies(streams)
    stacked = np.stack(per_stream)
    columns = np.arange(len(index))
    latency = np.zeros((len(load.callers), len(index)))
    for c, frequency, which in parts:
        total = sum(f for _, f in load.callers[c].demand.groups)
        latency[c] += frequency / total * stacked[which, columns]
    # Drawn while busy, at the mean number of calls that run then.
    in_flight = sum(c.calls * seconds for c, seconds in zip(load.callers, latency, strict=True)) / replicas
    with np.errstate(invalid="ignore", divide="ignore"):
        running = np.where(np.isfinite(in_flight) & (busy > 0), np.rint(in_flight / busy), limits)
    while_busy = drawn[index, np.clip(running, 1, limits).astype(np.int64) - 1]
    # Calls that start together keep several instances busy at the same time, and these may share a GPU.
    together = np.where(replicas > 1, _grouped(load), 0.0)
    return Evaluation(latency, utilisation, while_busy * (busy + (1 - busy) * together))


def _grouped(load: LlmLoad) -> float:
    """Return the part of the calls that do not start alone."""
    sizes = [(size, c.rate * size * frequency) for c in load.callers for size, frequency in c.demand.groups]
    return sum(calls for size, calls in sizes if size > 1) / max(sum(calls for _, calls in sizes), 1e-300)


def _padded(model: InstanceModel, share: list[float], limit: int) -> Array:
    """Continue R(n) beyond the limit of the instance by R̄(K)/K per waiting call."""
    waiting = np.arange(1, limit - model.limit + 1) * sum(s * float(w) for s, w in zip(share, model.work, strict=True))
    return np.concatenate([model.seconds, model.seconds[:, -1:] + waiting], axis=1)
