"""CPU time of compiling an example, split by stage."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.measure import HEAD, cpu_ms, row
from scepsy.allocation import build_problem, solve
from scepsy.compilation import collect_inputs, compile_plan
from scepsy.documents import load_workspace
from scepsy.manifests import check, render
from scepsy.repository import open_worktree
from scepsy.repository.new_project import create, examples
from scepsy.repository.outputs import compare, output_of


def main() -> None:
    """Report every example."""
    for name in examples():
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch) / "demo"
            create(directory, name)
            _report(name, directory)


def _report(name: str, directory: Path) -> None:
    workspace = load_workspace(directory, directory)
    (cluster,) = workspace.clusters
    inputs = collect_inputs(workspace, cluster)
    problem = build_problem(inputs.workflows, inputs.demands, inputs.catalog, inputs.inventory)
    plan = compile_plan(workspace, cluster).plan
    document = workspace.cluster(cluster).document

    def rendered() -> dict[str, bytes]:
        check(plan, document)
        return render(plan, document, workspace.project.document)

    output = output_of(workspace, plan, rendered())
    tree = open_worktree(directory)
    print(f"Compile the example {name} ({len(plan.spec.instances)} instances, {len(output.files)} files)")
    print(HEAD)
    print(row("documents: read and check", cpu_ms(lambda: load_workspace(directory, directory))))
    print(row("demand and profiles", cpu_ms(lambda: collect_inputs(workspace, cluster))))
    print(
        row(
            "pipeline: tables of options",
            cpu_ms(lambda: build_problem(inputs.workflows, inputs.demands, inputs.catalog, inputs.inventory)),
        )
    )
    print(row("allocation and placement", cpu_ms(lambda: solve(problem, inputs.inventory))))
    print(row("manifests: check and render", cpu_ms(rendered)))
    print(row("repository: compare", cpu_ms(lambda: compare(directory, tree, [output]))))
