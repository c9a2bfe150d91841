"""A demand as a TraceSummary document, and back: for large traces, which need not be committed."""

from __future__ import annotations

import re

import numpy as np

from scepsy.demand.arrivals import Arrivals
from scepsy.demand.call_graph import Graph, Step
from scepsy.demand.statistics import Demand, LlmDemand, Recorded, TokenUse, notes, sampled
from scepsy.documents import API_VERSION, Diagnostic, DocumentError, Loaded
from scepsy.documents.model import FileMetadata
from scepsy.documents.trace_summary import (
    ArrivalSummary,
    ExecutionSummary,
    GroupSize,
    LlmSummary,
    TraceSource,
    TraceSummary,
    TraceSummarySpec,
)
from scepsy.documents.units import Si
from scepsy.documents.workflow import TokenDistribution
from scepsy.traces.call import ESTIMABLE
from scepsy.traces.trace import Trace

MAX_STEPS = 2_000
"""Steps in a summary: a file of about 100 kB."""
MAX_SECONDS = 1e8
"""Longest step that is valid, seconds."""
MAX_EXECUTIONS = 200
"""Executions in a summary: enough for a 95th percentile."""

_SECONDS = r"(0|[0-9]{1,15}(\.[0-9]{1,15})?)"
_STEP = re.compile(
    rf"(?P<llm>[^\s]+) (?P<gap>{_SECONDS}) (?P<seconds>{_SECONDS})"
    r"( x(?P<calls>[0-9]{1,9}))?( < (?P<after>[0-9]{1,9}(,[0-9]{1,9})*))?"
)


def summary_of(name: str, trace: Trace, demand: Demand, digest: str) -> TraceSummary:
    """Return the summary of a trace.

    Args:
        name: the document's name.
        trace: the trace.
        demand: its demand.
        digest: of its file.
    """
    recorded = demand.recorded
    assert recorded is not None  # noqa: S101 - a trace has executions
    spans = recorded.makespans.seconds(np.array([recorded.group_seconds]))[:, 0]
    steps = sum(len(graph.steps) for graph in recorded.graphs)
    most = min(MAX_EXECUTIONS, len(spans) * MAX_STEPS // max(1, steps))
    estimated = {field: trace.estimates(field) for field in ESTIMABLE}
    return TraceSummary(
        api_version=API_VERSION,
        kind="TraceSummary",
        metadata=FileMetadata(name=name),
        spec=TraceSummarySpec(
            source=TraceSource(
                digest=digest,
                executions=recorded.executions,
                calls=trace.calls,
                failed=sum(trace.failed.values()),
                estimated={field: count for field, count in estimated.items() if count},
            ),
            outside=Si(demand.outside),
            llms=tuple(
                _llm(llm, demand.llms[llm], seconds)
                for llm, seconds in zip(recorded.llms, recorded.group_seconds, strict=True)
            ),
            arrivals=_arrivals(recorded.arrivals),
            executions=tuple(_execution(recorded, int(e)) for e in sampled(spans, most)),
        ),
    )


def _llm(name: str, llm: LlmDemand, seconds: float) -> LlmSummary:
    def tokens(use: TokenUse) -> TokenDistribution:
        return TokenDistribution(mean=_rounded(use.mean), max=use.max)

    return LlmSummary(
        llm=name,
        calls=_rounded(llm.calls),
        parallelism=max(1.0, _rounded(llm.parallelism)),
        groups=tuple(GroupSize(size=size, count=_rounded(count)) for size, count in llm.groups),
        group_seconds=_rounded(seconds),
        input_tokens=tokens(llm.input),
        output_tokens=tokens(llm.output),
        cached_tokens=tokens(llm.cached),
    )


def _rounded(value: float) -> float:
    """Round to seven digits: the last bits of a mean depend on the order of its sum."""
    return float(f"{value:.7g}")


def _arrivals(arrivals: Arrivals | str) -> ArrivalSummary | None:
    if isinstance(arrivals, str):
        return None
    return ArrivalSummary(
        rate=Si(arrivals.rate),
        low=Si(arrivals.low),
        high=Si(arrivals.high),
        dispersion=_rounded(arrivals.dispersion),
        window=Si(arrivals.window),
        executions=arrivals.count,
    )


def _execution(recorded: Recorded, e: int) -> ExecutionSummary:
    graph = recorded.graphs[e]
    return ExecutionSummary(
        calls={llm: float(n) for llm, n in zip(recorded.llms, recorded.calls[e], strict=True) if n},
        seconds={llm: round(float(s), 6) for llm, s in zip(recorded.llms, recorded.spent[e], strict=True) if s},
        tail=round(graph.tail, 6),
        steps=tuple(_written(step) for step in graph.steps),
    )


def _written(step: Step) -> str:
    calls = f" x{step.calls}" if step.calls > 1 else ""
    after = f" < {','.join(map(str, step.after))}" if step.after else ""
    return f"{step.llm} {_decimal(step.gap)} {_decimal(step.seconds)}{calls}{after}"


def _decimal(seconds: float) -> str:
    text = f"{seconds:.6f}".rstrip("0").rstrip(".")
    return text or "0"


def from_summary(loaded: Loaded[TraceSummary]) -> Demand:
    """Return the demand that a summary describes.

    Raises:
        DocumentError: a step is invalid, or names an LLM that the summary does not list.
    """
    spec = loaded.document.spec
    names = [entry.llm for entry in spec.llms]
    problems: list[Diagnostic] = []
    for index, name in enumerate(names):
        if name in names[:index]:
            problems.append(loaded.problem(("spec", "llms", index, "llm"), f'the LLM "{name}" is given twice'))
        entry = spec.llms[index]
        grouped = sum(group.size * group.count for group in entry.groups)
        if abs(grouped - entry.calls) > 1e-3 * entry.calls:
            message = f"the groups have {grouped:.4g} calls, but calls is {entry.calls:.4g}"
            problems.append(loaded.problem(("spec", "llms", index, "groups"), message))
    graphs = []
    for e, execution in enumerate(spec.executions):
        steps: list[Step] = []
        for s, text in enumerate(execution.steps):
            step = _parsed(text)
            message = _fault(step, s, names)
            if step is None or message:
                where = ("spec", "executions", e, "steps", s)
                problems.append(loaded.problem(where, message, 'write "LLM gap seconds xCALLS < 0,1"'))
                break
            steps.append(step)
        for key, counts in (("calls", execution.calls), ("seconds", execution.seconds)):
            for name in sorted(set(counts) - set(names)):
                problems.append(loaded.problem(("spec", "executions", e, key, name), f'unknown LLM "{name}"'))
        graphs.append(Graph(tuple(steps), execution.tail))
    if problems:
        raise DocumentError(problems)
    recorded = Recorded(
        executions=spec.source.executions,
        llms=tuple(sorted(names)),
        calls=np.array([[e.calls.get(name, 0.0) for name in sorted(names)] for e in spec.executions]),
        spent=np.array([[e.seconds.get(name, 0.0) for name in sorted(names)] for e in spec.executions]),
        graphs=tuple(graphs),
        group_seconds=tuple(e.group_seconds for e in sorted(spec.llms, key=lambda e: e.llm)),
        arrivals=_arrived(spec.arrivals),
        notes=notes(spec.source.calls, spec.source.failed, spec.source.estimated),
    )
    return Demand(spec.outside, {entry.llm: _demand(entry) for entry in spec.llms}, recorded)


def _parsed(text: str) -> Step | None:
    match = _STEP.fullmatch(text)
    if match is None:
        return None
    after = tuple(int(number) for number in match["after"].split(",")) if match["after"] else ()
    return Step(match["llm"], float(match["gap"]), float(match["seconds"]), int(match["calls"] or 1), after)


def _fault(step: Step | None, number: int, llms: list[str]) -> str:
    """Return what is wrong with a step; empty if it is valid."""
    if step is None:
        return "invalid step"
    if step.llm not in llms:
        return f'unknown LLM "{step.llm[:60]}"'
    if max(step.gap, step.seconds) > MAX_SECONDS:
        return f"step longer than {MAX_SECONDS:g} seconds"
    late = [other for other in step.after if other >= number]
    if late:
        return f"step {number} cannot wait for step {late[0]}: only for an earlier one, counted from 0"
    return ""


def _demand(entry: LlmSummary) -> LlmDemand:
    def use(tokens: TokenDistribution) -> TokenUse:
        return TokenUse(tokens.mean, tokens.max)

    return LlmDemand(
        entry.calls,
        entry.parallelism,
        entry.calls / entry.parallelism,
        tuple((group.size, group.count) for group in entry.groups),
        use(entry.input_tokens),
        use(entry.output_tokens),
        use(entry.cached_tokens),
    )


def _arrived(arrivals: ArrivalSummary | None) -> Arrivals | str:
    if arrivals is None:
        return "the summary has no arrivals"
    return Arrivals(
        arrivals.rate, arrivals.low, arrivals.high, arrivals.dispersion, arrivals.window, arrivals.executions
    )
