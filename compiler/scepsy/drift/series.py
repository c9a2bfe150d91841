"""Reads the traffic of the LLMs and workflows of a Plan from Prometheus, per minute of the last day.

vLLM calls the LLM `model_name`, the gateway calls it `proxy="llm-<name>"`. Only the
gateway's counters (`/metrics/workflows`) attribute calls to workflows. The last hour (the window) is read at full
scrape resolution, the rest of the day in steps of five minutes: enough to know how traffic varies.

Tokens are those of the histograms `vllm:request_prompt_tokens` and `vllm:request_generation_tokens`, which like
`vllm:request_success_total` count calls when they end, so that their ratio is one of the same calls;
`vllm:prompt_tokens_total` counts a prompt when it was read, once more when it was preempted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scepsy.documents import Plan
from scepsy.drift.change_detection import DAY, SLOT
from scepsy.drift.counters import Floats, Samples, Slots, alive_at, counted, joined, of_targets, together
from scepsy.drift.prometheus import Prometheus, selector
from scepsy.manifests.gateway import CALLS_METRIC, EXECUTIONS_METRIC, PARTS

CALLS = "vllm:request_success_total"
INPUT = "vllm:request_prompt_tokens_sum"
OUTPUT = "vllm:request_generation_tokens_sum"
CACHED = "vllm:prefix_cache_hits_total"
SECONDS = "vllm:e2e_request_latency_seconds_sum"
ARRIVED = "haproxy_backend_http_requests_total"
QUEUED = "haproxy_backend_queue_time_average_seconds"
BACKEND = "llm-"
"""Prefix of the gateway's backends."""
STEP = 300
"""Seconds between samples of the history that lies before the window."""
STALE = 300.0
"""Seconds without a sample after which a process counts as gone."""
_TARGET = ("pod", "instance")
"""Labels that identify a process, the first that exists: an address may change while a pod lives."""
_COUNTED = ("finished_reason", "workflow", "llm", "execution", "part")
"""Labels that distinguish the counters of one process with the same name."""


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """The traffic of one LLM. Slots are None if there is no such series.

    Attributes:
        calls: calls that engines finished.
        input: prompt tokens of them.
        output: generated tokens of them.
        cached: prompt tokens that the prefix cache held.
        seconds: the sum of their latencies, the queue of the engine included.
        arrived: calls that reached the gateway, whether they succeeded or not.
        queued: (T,) mean seconds that calls waited in the gateway, NaN where that is not known.
        engines: processes that were scraped within the last minutes.
    """

    calls: Slots | None
    input: Slots | None
    output: Slots | None
    cached: Slots | None
    seconds: Slots | None
    arrived: Slots | None
    queued: Floats | None
    engines: int


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """What the gateway counted of one workflow.

    Attributes:
        executions: those that a pod saw a first call of, over all pods.
        parts: (PARTS, T) the same by the hash of their names.
        calls: by LLM, calls of named executions.
        pods: (T,) gateway pods that were there.
        fine: minutes at the end that were read at full scrape resolution.
    """

    executions: Slots
    parts: Floats
    calls: Mapping[str, Slots]
    pods: Floats
    fine: int


@dataclass(frozen=True, slots=True, eq=False)
class Callers:
    """Which workflows calls belong to, as far as calls name them.

    Attributes:
        workflows: by name; those that the gateway does not count are missing.
        calls: by LLM, all calls that the gateway counted, with or without a workflow.
    """

    workflows: Mapping[str, Counted]
    calls: Mapping[str, Slots]


def observe(
    prometheus: Prometheus, plan: Plan, end: float, window: int, matchers: Mapping[str, str]
) -> dict[str, Traffic]:
    """Read the traffic of every LLM of a Plan.

    Args:
        prometheus: where.
        plan: the Plan.
        end: the time of the check, Unix seconds.
        window: seconds before it that are read at full scrape resolution.
        matchers: further labels that series must have; they replace the Plan's namespace where they name that label.

    Raises:
        PrometheusError: it cannot be read, or the answer is incomplete.
    """
    names = [llm.name for llm in plan.spec.llms]
    common = {"namespace": plan.spec.namespace, **matchers}
    engine = [_read(prometheus, selector(m, common, ("model_name", names)), end, window) for m in _ENGINE]
    proxies = [BACKEND + name for name in names]
    gateway = [_read(prometheus, selector(m, common, ("proxy", proxies)), end, window) for m in (ARRIVED, QUEUED)]
    found = {}
    for name in names:
        calls, prompt, output, cached, seconds = (
            _counted([s for s in series if s.labels.get("model_name") == name], end) for series in engine
        )
        arrived, queued = ([s for s in series if s.labels.get("proxy") == BACKEND + name] for series in gateway)
        scraped = [s for s in engine[0] if s.labels.get("model_name") == name]
        living = {_target(s) for s in scraped if alive_at(s, end, STALE)}
        found[name] = Traffic(
            calls, prompt, output, cached, seconds, _counted(arrived, end), _gauge(queued, end), len(living)
        )
    return found


_ENGINE = (CALLS, INPUT, OUTPUT, CACHED, SECONDS)


def observe_callers(
    prometheus: Prometheus, plan: Plan, end: float, window: int, matchers: Mapping[str, str]
) -> Callers:
    """Read what the gateway counted per workflow; the arguments are those of `observe`.

    Raises:
        PrometheusError: it cannot be read, or the answer is incomplete.
    """
    llms = [llm.name for llm in plan.spec.llms]
    names = [workflow.name for workflow in plan.spec.workflows]
    common = {"namespace": plan.spec.namespace, **matchers}
    calls = _read(prometheus, selector(CALLS_METRIC, common, ("llm", llms)), end, window)
    executions = _read(prometheus, selector(EXECUTIONS_METRIC, common, ("workflow", names)), end, window)
    found = {}
    for name in names:
        begun = [s for s in executions if s.labels["workflow"] == name]
        total = _counted(begun, end)
        named = [s for s in calls if s.labels.get("workflow") == name and s.labels.get("execution") == "named"]
        by_llm = {llm: _counted([s for s in named if s.labels["llm"] == llm], end) for llm in llms}
        if total is not None:
            parts = [_counted([s for s in begun if s.labels.get("part") == str(part)], end) for part in range(PARTS)]
            found[name] = Counted(
                total,
                np.stack([np.zeros(DAY) if part is None else part.value for part in parts]),
                {llm: slots for llm, slots in by_llm.items() if slots is not None},
                _processes(begun, end),
                min(window // int(SLOT), DAY),
            )
    every = {llm: _counted([s for s in calls if s.labels["llm"] == llm], end) for llm in llms}
    return Callers(found, {llm: slots for llm, slots in every.items() if slots is not None})


def _processes(series: Sequence[Samples], end: float) -> Floats:
    """Return how many processes there were per slot, (T,)."""
    edges = end - SLOT * np.arange(DAY, -1, -1)
    lives: dict[str, tuple[float, float]] = {}
    for one in series:
        first, last = lives.get(_target(one), (np.inf, -np.inf))
        lives[_target(one)] = min(first, float(one.at[0])), max(last, float(one.at[-1]))
    there = [(edges[1:] > first) & (edges[:-1] < last) for first, last in lives.values()]
    return np.asarray(np.sum(there, axis=0, dtype=np.float64))


def _read(prometheus: Prometheus, series: str, end: float, window: int) -> list[Samples]:
    """Read the day before `end`, the window at its end finely."""
    day = int(DAY * SLOT)
    fine = min(window, day)
    parts: dict[frozenset[tuple[str, str]], list[Samples]] = {}
    # A sample more on both ends: increments are between samples.
    coarse = prometheus.history(series, end - day - STEP, end - fine, STEP) if fine < day else []
    for one in [*coarse, *prometheus.raw(series, end, fine)]:
        if len(one.at):
            parts.setdefault(frozenset(one.labels.items()), []).append(one)
    return [joined(several) for several in parts.values()]


def _target(series: Samples) -> str:
    """Return which process a series is of."""
    name = next((series.labels[label] for label in _TARGET if series.labels.get(label)), "")
    return f"{name} {series.labels.get('engine', '')}"


def _counted(series: Sequence[Samples], end: float) -> Slots | None:
    """Add up the counters of all processes; None where there is none."""
    processes: dict[str, list[Samples]] = {}
    for one in series:
        processes.setdefault(_target(one), []).append(one)
    targets = []
    for several in processes.values():
        kept = _once(several)
        slots = together([counted(one, end, DAY, SLOT) for one in kept])
        targets.append((max(kept, key=lambda s: float(s.at[-1] - s.at[0])), slots))
    return of_targets(targets) if targets else None


def _once(series: Sequence[Samples]) -> list[Samples]:
    """Drop duplicate series of the same counter: of a pod that two jobs scrape, or two Prometheuses.

    Series of one process differ in what they count (such as why a call ended), or only in who scraped them: the latter
    are duplicates.
    """
    kept: dict[tuple[str, ...], list[Samples]] = {}
    for one in sorted(series, key=lambda s: (-len(s.at), sorted(s.labels.items()))):
        same = kept.setdefault(tuple(one.labels.get(label, "") for label in _COUNTED), [])
        if all(one.at[0] > other.at[-1] or one.at[-1] < other.at[0] for other in same):
            same.append(one)
    return [one for several in kept.values() for one in several]


def _gauge(series: Sequence[Samples], end: float) -> Floats | None:
    """Return the mean of gauges per slot, (T,); NaN where there is no sample near."""
    edges = end - SLOT * np.arange(DAY, -1, -1)
    middle = (edges[:-1] + edges[1:]) / 2
    total, count = np.zeros(DAY), np.zeros(DAY)
    for one in series:
        after = np.clip(np.searchsorted(one.at, middle), 0, len(one.at) - 1)
        before = np.maximum(after - 1, 0)
        near = np.where(np.abs(one.at[before] - middle) < np.abs(one.at[after] - middle), before, after)
        known = np.abs(one.at[near] - middle) <= STEP
        total += np.where(known, one.value[near], 0.0)
        count += known
    if not series:
        return None
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(count > 0, total / count, np.nan))
