"""Plans and explanations as tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scepsy.documents.command_results import ExplainResult, FileChanges
from scepsy.documents.plan import PlannedLlm, PlanSpec
from scepsy.documents.units import format_duration, format_rate, significant

_LISTED = 8
"""Paths of a kind that are listed; the rest is counted."""


def show_plan(console: Console, spec: PlanSpec) -> None:
    """Print a plan: the shapes of LLMs, the predictions of workflows, the instances on GPU sets, and the proof."""
    console.print(f"[bold]Plan for cluster {escape(spec.cluster)}[/bold] ({spec.sharing}, namespace {spec.namespace})")
    console.print(_llms(spec.llms))
    if any(llm.profile.share_model for llm in spec.llms):
        console.print("* extrapolated or interpolated from other GPU shares")
    console.print(_workflows(spec))
    for line in _heavy(spec):
        console.print(line, soft_wrap=True)
    console.print(_places(spec))
    free = spec.free
    console.print(
        f"Free: {free.gpus} GPU{'s' * (free.gpus != 1)}"
        + (f", largest TP group that still fits: {free.largest_tensor_parallel}" if free.gpus else "")
        + (f"; {free.reserved} reserved" if free.reserved else "")
    )
    console.print(f"Objective: {spec.proof.achieved:.4f} ({spec.proof.objective})")
    if spec.proof.gap == 0:
        optimality, bound = "proven", "gap 0 %"
    else:
        optimality = f"at most {significant(spec.proof.gap * 100, 2)} % above the best possible"
        bound = f"proven lower bound {spec.proof.lower_bound:.4f}"
    console.print(f"Optimality: {optimality} ({bound}, predictor {spec.proof.predictor})")
    if spec.warnings:
        console.print(f"[yellow]Warnings ({len(spec.warnings)}):[/yellow]")
        for warning in spec.warnings:
            console.print(f"  - {escape(warning)}", soft_wrap=True)


def _llms(llms: Iterable[PlannedLlm]) -> Table:
    table = _table("LLM", "model", "GPU", "TP", "share", "replicas", "used", "profile")
    for llm in llms:
        source = llm.profile.source + ("*" if llm.profile.share_model else "")
        table.add_row(
            llm.name,
            llm.model.rpartition("/")[2],
            llm.product.removeprefix("NVIDIA-"),
            str(llm.tp),
            f"{llm.share:.1f}",
            str(llm.replicas),
            f"{llm.predicted.utilisation:.0%}",
            source,
        )
    return table


def _workflows(spec: PlanSpec) -> Table:
    latencies = [workflow.predicted.latency for workflow in spec.workflows]
    known = [name for name in ("mean", "p50", "p95", "p99") if any(getattr(latency, name) for latency in latencies)]
    table = _table("workflow", "target", *(f"{name} latency" for name in known), "capacity", "slowdown")
    for workflow, latency in zip(spec.workflows, latencies, strict=True):
        seconds = [getattr(latency, name) for name in known]
        table.add_row(
            workflow.name,
            format_rate(workflow.target.per_second),
            *("" if s is None else f"~{format_duration(s)}" for s in seconds),
            f"~{format_rate(workflow.predicted.capacity)}",
            f"{workflow.predicted.slowdown:.2f}×",
        )
    return table


def _heavy(spec: PlanSpec) -> Iterator[str]:
    """Yield what is planned for beyond the mean demand, and how many GPUs that costs."""
    for workflow in spec.workflows:
        if workflow.demand is not None:
            factors = ", ".join(f"{llm} {significant(f, 3)}×" for llm, f in workflow.demand.factors.items())
            quantile = significant(workflow.demand.quantile)
            yield f"{workflow.name}: planned for the {quantile} quantile of demand; load ÷ mean load: {factors}"
    if spec.fewest_gpus is not None:
        planned, mean = (f"{n} GPU{'s' * (n != 1)}" for n in (spec.fewest_gpus.planned, spec.fewest_gpus.mean))
        yield f"Fewest GPUs that meet the targets: {planned}; with the mean demand: {mean}"


def _places(spec: PlanSpec) -> Table:
    table = _table("node", "GPUs", "instances (share)")
    sets: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for instance in spec.instances:
        sets.setdefault((instance.node, instance.gpus), []).append(f"{instance.name} ({instance.share:.1f})")
    for (node, gpus), tenants in sorted(sets.items()):
        table.add_row(node, _gpus(gpus), ", ".join(tenants))
    return table


def _gpus(gpus: tuple[str, ...]) -> str:
    """Shorten UUIDs to their last characters; the Plan has them in full."""
    return " ".join("…" + uuid[-4:] for uuid in gpus)


def show_state(console: Console, changes: FileChanges, verb: str) -> None:
    """Print what happened to files, or would happen."""
    for title, paths in (
        ("added", changes.added),
        ("changed", changes.changed),
        ("removed", changes.removed),
        ("edited by hand", changes.edited),
        ("not committed", changes.uncommitted),
    ):
        if paths:
            console.print(f"{verb}{title}: {len(paths)} file{'s' * (len(paths) != 1)}")
            for path in paths[:_LISTED]:
                console.print(f"  {escape(path)}", soft_wrap=True)
            if len(paths) > _LISTED:
                console.print(f"  … and {len(paths) - _LISTED} more")


def show_explanation(console: Console, result: ExplainResult) -> None:
    """Print where latency comes from, what limits the rate, the next-best options, and other budgets."""
    for workflow in result.workflows:
        console.print(
            f"[bold]{escape(workflow.workflow)}[/bold]: mean latency ~{format_duration(workflow.latency)} "
            f"({workflow.latency / workflow.least:.2f}× its least latency alone, {format_duration(workflow.least)}), "
            f"capacity ~{format_rate(workflow.capacity)}, limited by {workflow.bottleneck}"
        )
        table = _table("LLM", "latency", "share", "")
        for part in workflow.parts:
            bar = "█" * round(part.fraction * 30) or "▏"
            table.add_row(part.llm or "outside LLMs", format_duration(part.seconds), f"{part.fraction:.1%}", bar)
        console.print(table)
    console.print(f"Next-best options per LLM, the others unchanged (objective now {result.objective:.4f}):")
    table = _table("LLM", "option", "GPUs", "objective", "change", "")
    for alternative in result.alternatives:
        table.add_row(
            alternative.llm,
            alternative.option,
            significant(alternative.gpus, 3),
            f"{alternative.objective:.4f}",
            f"{alternative.objective / result.objective - 1:+.2%}",
            "" if alternative.placeable else "does not fit beside the other instances",
        )
    console.print(table)
    console.print("With one GPU less, or one more on another node:")
    table = _table("GPU", "count", "objective", "change")
    for budget in result.budgets:
        if budget.objective is None:
            table.add_row(budget.product, str(budget.gpus), "targets not met", "")
        else:
            change = f"{budget.objective / result.objective - 1:+.2%}"
            table.add_row(budget.product, str(budget.gpus), f"{budget.objective:.4f}", change)
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
