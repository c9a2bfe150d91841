"""Which measurements the workflows and a cluster still need, what they cost, and which profiles no longer hold.

Wanted is every shape that a compile could choose: the cluster's products (reserved GPUs too: measurements run there),
tensor-parallel degrees, and shares. Left out is what a measured profile covers, and what memory rules out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from scepsy.documents import Cluster, Workspace
from scepsy.documents.profile import Neighbours, TensorParallel
from scepsy.performance import fit
from scepsy.pipeline import shortage
from scepsy.placement import Inventory, inventory_of
from scepsy.profiling.planning.calls_to_measure import Role, roles_of, shared
from scepsy.profiling.planning.existing_profiles import Evidence
from scepsy.profiling.planning.sweep import Covered, Missing, ProfilePlan, RuledOut, Shape, Sweep, neighbours_in

START = 120
"""Seconds an engine is expected to take to start beside reading its weights: imports, compilation, CUDA graphs. An
estimate; `manifests.engine.START` is the most that it may take."""
READ_RATE = 500 * (1 << 20)
"""Bytes of weights per second that a hub or volume is expected to deliver. An estimate."""

Row = Missing | Covered | RuledOut


def plan_profiles(workspace: Workspace, cluster: str) -> ProfilePlan:
    """Return what is to be measured for the workflows of a project on a cluster; the project may have no profiles.

    Args:
        workspace: the project.
        cluster: the cluster's name.

    Raises:
        DocumentError: traces are wrong, or calls are longer than their LLM allows.
        ScepsyError: there is no such cluster.
    """
    where = workspace.cluster(cluster).document
    inventory = _every_gpu(where)
    neighbours = neighbours_in(workspace.project.document, where)
    settings = workspace.project.document.spec
    evidence = Evidence([loaded.document for loaded in workspace.profiles.values()], settings.engine.version)
    roles = roles_of(workspace, evidence.architectures)
    evidence = replace(evidence, calls=[role.calls for role in roles])
    tenths = sorted({10, *(round(share * 10) for share in settings.profiling.shares)}, reverse=True)
    sweeps: list[Sweep] = []
    rows: list[Row] = []
    for members in shared(roles):
        others = [r for r in roles if r.llm.model == members[0].llm.model and r not in members]
        for product in inventory.products:
            budget = settings.profiling.budget
            question = _Question(members, others, product, inventory, evidence, tenths, neighbours, budget)
            decided = list(question.rows())
            rows += decided
            points = tuple(row for row in decided if isinstance(row, Missing))
            sweeps += [_sweep(members, product, points)] if points else []
    return ProfilePlan(
        cluster=cluster,
        sweeps=tuple(sorted(sweeps, key=lambda sweep: (sweep.model, sweep.product, sweep.llm, sweep.workflow))),
        covered=tuple(sorted({row for row in rows if isinstance(row, Covered)}, key=_place)),
        ruled_out=tuple(sorted({row for row in rows if isinstance(row, RuledOut)}, key=_place)),
        stale=tuple(evidence.stale(roles, inventory.products)),
        memory_unknown=tuple(sorted({sweep.model for sweep in sweeps} - evidence.architectures.keys())),
    )


def _every_gpu(cluster: Cluster) -> Inventory:
    """Return the GPUs of a cluster, those that it keeps back for measurements too."""
    nodes = tuple(node.model_copy(update={"reserved": ()}) for node in cluster.spec.nodes)
    return inventory_of(cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"nodes": nodes})}))


def _sweep(roles: Sequence[Role], product: str, points: tuple[Missing, ...]) -> Sweep:
    first = roles[0]
    return Sweep(
        model=first.llm.model,
        revision=first.llm.revision,
        product=product,
        llm=first.llm.name,
        workflow=first.workflow,
        mix=first.mix,
        max_num_seqs=max(role.llm.max_num_seqs for role in roles),
        max_model_len=first.llm.max_model_len,
        points=points,
        roles=tuple((role.workflow, role.llm.name) for role in roles),
        trace_digest=first.calls.digest,
    )


def _place(row: Covered | RuledOut) -> tuple[str, str, str, int, int, str]:
    last = row.profile if isinstance(row, Covered) else row.reason
    return row.model, row.product, row.llm, row.shape.tp, -row.shape.tenths, last


@dataclass(frozen=True)
class _Question:
    """What roles that one measurement serves need on one product, beside other roles of the model."""

    roles: tuple[Role, ...]
    others: Sequence[Role]
    product: str
    inventory: Inventory
    evidence: Evidence
    tenths: Sequence[int]
    neighbours: Neighbours
    budget: float

    def rows(self) -> Iterator[Row]:
        """Decide over every shape, smallest degree and largest share first."""
        llm = self.roles[0].llm
        asked = {tp for role in self.roles for tp in role.llm.tensor_parallel}
        free = any(not role.llm.tensor_parallel for role in self.roles)
        for tp in sorted({*asked, *(get_args(TensorParallel) if free else ())}):
            impossible = self._impossible(tp)
            if impossible is None:
                parts = self.inventory.fractions and (tp == 1 or self.inventory.shared_groups)
                for tenths in self.tenths if parts else (10,):
                    yield from self._decided(Shape(tp, tenths))
            elif tp in asked:  # degrees that were not asked for are not reported
                yield RuledOut(llm.model, self.product, Shape(tp, 10), llm.name, impossible)

    def _impossible(self, tp: int) -> str | None:
        architecture = self.evidence.architectures.get(self.roles[0].llm.model)
        if architecture is not None and architecture.attention_heads % tp:
            return f"TP {tp} does not divide the model's {architecture.attention_heads} attention heads"
        largest = max(len(domain.gpus) for domain in self.inventory.domains[self.product])
        return f"no NVLink domain has {tp} GPUs; the largest has {largest}" if tp > largest else None

    def _decided(self, shape: Shape) -> Iterator[Row]:
        llm = self.roles[0].llm
        asking = [r for r in self.roles if not r.llm.tensor_parallel or shape.tp in r.llm.tensor_parallel]
        names, why = self.evidence.measured(asking, self.others, self.product, shape, self.neighbours)
        if why is None:
            for name in names:
                yield Covered(llm.model, self.product, shape, llm.name, name)
            return
        reason = self.evidence.unusable(self.roles[0], self.product, shape) or self._too_big(shape)
        if reason is not None:
            yield RuledOut(llm.model, self.product, shape, llm.name, reason)
        else:
            yield Missing(shape, why, self._gpu_hours(shape))

    def _too_big(self, shape: Shape) -> str | None:
        """Return why memory rules a shape out, by the rule of a compile; empty for an unknown model."""
        llm = self.roles[0].llm
        architecture = self.evidence.architectures.get(llm.model)
        if architecture is None:
            return None
        memory = fit(architecture, self.inventory.card[self.product], shape.tp, shape.tenths)
        return shortage(memory, llm.max_model_len or architecture.context_length)

    def _gpu_hours(self, shape: Shape) -> float:
        architecture = self.evidence.architectures.get(self.roles[0].llm.model)
        weights = architecture.parameters * architecture.bytes_per_parameter if architecture else 0
        return round(shape.tp * (START + weights / READ_RATE + self.budget) / 3600, 3)
