"""Which measurements are missing, as tables in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scepsy.documents.profile_plan_result import PlannedSweep, ProfilePlanResult
from scepsy.documents.units import format_duration, significant

T = TypeVar("T")


def show_profile_plan(console: Console, result: ProfilePlanResult) -> None:
    """Print what to measure and what that costs, what is measured, what cannot serve, and what no longer holds."""
    console.print(f"[bold]Measurements for cluster {escape(result.cluster)}[/bold] (vLLM {escape(result.engine)})")
    console.print()
    for sweep in result.sweeps:
        _show_sweep(console, sweep)
    _show_cost(console, result)
    if result.covered:
        table = _titled(console, "Measured already:", "model", "GPU", "TP", "share", "profile")
        keys = _grouped(result.covered, lambda row: (row.model, row.product, row.tp, row.profile))
        for (model, product, tp, profile), rows in keys:
            shares = _shares(row.share for row in rows)
            table.add_row(model, product.removeprefix("NVIDIA-"), str(tp), shares, profile)
        console.print(table)
        console.print()
    if result.ruled_out:
        table = _titled(console, "Ruled out:", "LLM", "GPU", "TP", "share", "reason")
        for (llm, product, tp, reason), refused in _grouped(
            result.ruled_out, lambda row: (row.llm, row.product, row.tp, row.reason)
        ):
            shares = _shares(row.share for row in refused)
            table.add_row(llm, product.removeprefix("NVIDIA-"), str(tp), shares, escape(reason))
        console.print(table)
        console.print()
    if result.stale:
        table = _titled(console, "Stale profiles, to be measured again or removed:", "profile", "reason")
        for row in result.stale:
            table.add_row(row.profile, escape(row.reason))
        console.print(table)
        console.print()


def _show_sweep(console: Console, sweep: PlannedSweep) -> None:
    revision = f" at {sweep.revision}" if sweep.revision else ""
    model = f"{sweep.model}{revision} on {sweep.product}"
    cached = f" ({_tokens(sweep.mix.cached)} of them cached)" if sweep.mix.cached >= 1 else ""
    console.print(f"[bold]{escape(model)}[/bold]", soft_wrap=True)
    console.print(
        f"calls to {sweep.llm} of {sweep.workflow}: "
        f"{_tokens(sweep.mix.input)} prompt tokens{cached}, {_tokens(sweep.mix.output)} generated"
    )
    others = [f"{role.llm} of {role.workflow}" for role in sweep.serves[1:]]
    if others:
        console.print(f"also serves (similar calls): {', '.join(others)}")
    table = _table("TP", "share", "why", "GPU-hours")
    table.columns[-1].justify = "right"
    for (tp, why), points in _grouped(sweep.points, lambda point: (point.tp, point.why)):
        hours = sum(point.gpu_hours for point in points)
        table.add_row(str(tp), _shares(point.share for point in points), escape(why), f"~{_hours(hours)}")
    console.print(table)
    console.print()


def _show_cost(console: Console, result: ProfilePlanResult) -> None:
    count = sum(len(sweep.points) for sweep in result.sweeps)
    if not count:
        console.print("Nothing is missing.")
        console.print()
        return
    whole = ", and a share holds its whole GPU" if any(p.share < 1 for s in result.sweeps for p in s.points) else ""
    console.print(
        f"[bold]In all {count} measurement{'s' * (count != 1)}, ~{_hours(result.gpu_hours)} GPU-hours.[/bold] "
        f"An estimate: each takes its whole budget of {_time(result.budget)}{whole}."
    )
    if result.memory_unknown:
        models = ", ".join(result.memory_unknown)
        console.print(f"Memory unknown: there is no profile of {escape(models)}; the job finds out what fits.")
    console.print("To measure less: tensorParallel in the workflows, spec.profiling.shares in scepsy.yaml.")
    first = "" if result.image else "build profiling-jobs/Dockerfile, push it, name it in spec.profiling.image, then: "
    console.print(f"Next: {first}scepsy profile submit", soft_wrap=True)
    console.print()


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours < 100 else f"{hours:,.0f}"


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f}min" if seconds % 60 == 0 else format_duration(seconds)


def _tokens(tokens: float) -> str:
    return significant(tokens, 3) if tokens < 100 else f"{tokens:,.0f}"


def _shares(shares: Iterable[float]) -> str:
    return " ".join(f"{share:.1f}" for share in shares)


def _grouped(rows: Iterable[T], key: Callable[[T], tuple[Hashable, ...]]) -> list[tuple[Sequence[str], list[T]]]:
    """Return rows with the same key together, in the order of the first of each."""
    groups: dict[tuple[Hashable, ...], list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return [([str(part) for part in of], members) for of, members in groups.items()]


def _titled(console: Console, title: str, *columns: str) -> Table:
    console.print(title)
    return _table(*columns)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
