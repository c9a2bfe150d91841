"""What a plan of measurements is made of: shapes, sweeps over them, and what need not or cannot be measured."""

from __future__ import annotations

from dataclasses import dataclass

from scepsy.documents import Cluster, Project
from scepsy.documents.profile import Neighbours
from scepsy.performance import Mix
from scepsy.sharing import backend_of


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """What one instance takes of its GPUs.

    Attributes:
        tp: tensor-parallel degree.
        tenths: share of each GPU in tenths.
    """

    tp: int
    tenths: int

    @property
    def share(self) -> float:
        """The share of each GPU."""
        return self.tenths / 10


@dataclass(frozen=True, slots=True)
class Missing:
    """A shape to measure.

    Attributes:
        shape: the shape.
        why: `not profiled`, `only estimated`, or why what is measured no longer holds.
        gpu_hours: what it is expected to cost: whole GPUs, also for a share, for the engine's start and the budget.
    """

    shape: Shape
    why: str
    gpu_hours: float


@dataclass(frozen=True)
class Sweep:
    """Measurements of one model on one product with the calls of one role, over several shapes.

    Attributes:
        model: the model.
        revision: its revision, where it is pinned.
        product: GPU product.
        llm: the LLM whose calls are replayed.
        workflow: the workflow that makes them.
        mix: mean tokens of these calls.
        max_num_seqs: most calls that run at once, of all that the measurement serves.
        max_model_len: longest call in tokens; None for the model's limit.
        points: the shapes, smallest degree and largest share first.
        roles: (workflow, LLM) of all that the measurement serves, the one that is replayed first.
        trace_digest: digest of the calls, as Profiles note it.
    """

    model: str
    revision: str | None
    product: str
    llm: str
    workflow: str
    mix: Mix
    max_num_seqs: int
    max_model_len: int | None
    points: tuple[Missing, ...]
    roles: tuple[tuple[str, str], ...]
    trace_digest: str

    @property
    def gpu_hours(self) -> float:
        """What all its shapes are expected to cost."""
        return sum(point.gpu_hours for point in self.points)


@dataclass(frozen=True, slots=True)
class Covered:
    """A shape that is measured already, for the calls of one LLM.

    Attributes:
        model: the model.
        product: GPU product.
        shape: the shape.
        llm: the LLM.
        profile: name of the Profile.
    """

    model: str
    product: str
    shape: Shape
    llm: str
    profile: str


@dataclass(frozen=True, slots=True)
class RuledOut:
    """A shape that cannot serve, for one LLM.

    Attributes:
        model: the model.
        product: GPU product.
        shape: the shape.
        llm: the LLM.
        reason: why.
    """

    model: str
    product: str
    shape: Shape
    llm: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stale:
    """A measured or imported profile of a called model that no workflow uses any longer.

    Attributes:
        profile: its name.
        reason: why, with the numbers.
    """

    profile: str
    reason: str


@dataclass(frozen=True)
class ProfilePlan:
    """What to measure for a cluster, and what not.

    Attributes:
        cluster: its name.
        sweeps: what to measure, by model, product and LLM.
        covered: what is measured.
        ruled_out: what cannot serve.
        stale: profiles that no longer hold.
        memory_unknown: models of which no profile exists: whether they fit is found out by the measurement.
    """

    cluster: str
    sweeps: tuple[Sweep, ...] = ()
    covered: tuple[Covered, ...] = ()
    ruled_out: tuple[RuledOut, ...] = ()
    stale: tuple[Stale, ...] = ()
    memory_unknown: tuple[str, ...] = ()

    @property
    def gpu_hours(self) -> float:
        """What all sweeps are expected to cost."""
        return sum(sweep.gpu_hours for sweep in self.sweeps)


def neighbours_in(project: Project, cluster: Cluster) -> Neighbours:
    """Return what the rest of a cluster's GPUs does while a share is measured."""
    return project.spec.profiling.neighbours if backend_of(cluster.spec.sharing).busy_neighbours else "idle"
