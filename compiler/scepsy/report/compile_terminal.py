"""The result of a compile, on a terminal."""

from __future__ import annotations

from rich.console import Console

from scepsy.documents.command_results import CompileResult
from scepsy.report.plan_terminal import show_plan, show_state


def show_compile(console: Console, result: CompileResult) -> None:
    """Print a result for people."""
    for cluster in result.clusters:
        show_plan(console, cluster.plan)
        if cluster.note:
            console.print(cluster.note)
        if cluster.up_to_date:
            console.print("Output: up to date")
        else:
            show_state(console, cluster.changes, "out of date, " if result.checked else "")
        console.print()
    for left_over in result.gone:
        console.print(f"Cluster {left_over.cluster} is no longer in the project: its output is removed")
        show_state(console, left_over.changes, "out of date, " if result.checked else "")
    if result.pushed:
        pushed = result.pushed
        place = pushed.remote if pushed.url in ("", pushed.remote) else f"{pushed.remote} ({pushed.url})"
        console.print(f"Pushed {pushed.commit[:12]} to {place}, branch {pushed.branch}.", soft_wrap=True)
    elif result.commit:
        console.print(f"Committed {result.commit[:12]}: Argo CD syncs it once it is pushed (git push).")
    elif result.checked:
        stale = [c.cluster for c in result.clusters if not c.up_to_date] + [g.cluster for g in result.gone]
        if stale:
            edited = any(c.changes.edited for c in result.clusters)
            force = " --force (files were edited by hand)" if edited else ""
            console.print(f"Out of date: {', '.join(stale)}. Run: scepsy compile --commit{force}")
    elif any(c.changes.uncommitted or not c.up_to_date for c in result.clusters):
        console.print("Next: check the files (git status, git diff), then: scepsy compile --commit")
    if result.left:
        left = f"Your checkout was not updated: {result.left}. Update it with: {result.remedy}"
        console.print(left, soft_wrap=True, markup=False)
