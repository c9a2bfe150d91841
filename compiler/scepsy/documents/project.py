"""The Project document (`scepsy.yaml`): its directories, and the settings of everything that is rendered."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from scepsy.documents.model import Document, Image, Items, KubernetesName, Metadata, Model, RelativePath, Version
from scepsy.documents.profile import Neighbours
from scepsy.documents.units import Duration, Memory, Share


class Paths(Model):
    """Directories, relative to `scepsy.yaml`."""

    workflows: RelativePath = "workflows"
    """Workflow documents."""
    clusters: RelativePath = "clusters"
    """Cluster documents."""
    profiles: RelativePath = "profiles"
    """Profile documents."""
    templates: RelativePath | None = None
    """Templates that override the shipped ones of the same file name."""
    observed: RelativePath = "observed"
    """What `scepsy drift --recompile` observed, one file per workflow, and one per cluster in `clusters/` below it."""
    plans: RelativePath = "plans"
    """Where Plans are written, one file per cluster."""
    rendered: RelativePath = "rendered"
    """Where manifests are written, `<cluster>/<namespace>/`; Argo CD syncs from here."""


class SecretKey(Model):
    """A reference to one key of a Kubernetes Secret in the project's namespace."""

    name: KubernetesName
    """The Secret."""
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]{1,253}$")]
    """The key in it."""


class ModelCache(Model):
    """Where instances keep the model files they download."""

    claim_name: KubernetesName | None = None
    """An existing PersistentVolumeClaim that all nodes can mount; without it each pod downloads into an emptyDir."""
    size_limit: Memory | None = None
    """Limit of the emptyDir."""


class EngineSettings(Model):
    """The serving engine of all instances."""

    image: Image = "vllm/vllm-openai:v0.24.0"
    """Its container image; pin it with a digest."""
    version: Version = "0.24.0"
    """The engine version in that image; profiles of another version are stale."""
    token: SecretKey | None = None
    """A Secret with the hub token for gated models."""
    cache: ModelCache = ModelCache()
    """The model cache."""
    priority_class: KubernetesName | None = None
    """PriorityClass of the pods; must exist in the cluster."""


class GatewaySettings(Model):
    """The one OpenAI endpoint in front of all LLMs."""

    image: Image = "haproxy:3.2"
    """HAProxy's container image; pin it with a digest."""
    replicas: Annotated[int, Field(ge=1, le=20)] = 2
    """Gateway pods; fewer than two cut streams on restart."""
    max_body: Memory = 2 * 1024 * 1024
    """Longest request body in which the model name is searched (HAProxy buffers it)."""


class Replanning(Model):
    """How much a compile avoids moving running instances; every move is a model load."""

    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Fraction by which the objective may be worse than the best in order to start fewer instances."""
    minimum_gain: Annotated[float, Field(ge=0, le=10)] = 0.02
    """The plan in force stays unless its objective is worse than the best by more than this fraction, whenever it is
    compiled again (`spec.drift.minimumGain` decides whether drift compiles again)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.minimum_gain < self.tolerance:
            raise ValueError("minimumGain is below tolerance: every compile would move something")
        return self


class ProfilingSettings(Model):
    """The jobs that measure profiles on the cluster's GPUs."""

    namespace: KubernetesName = "scepsy-profiling"
    """Kubernetes namespace of the jobs; apart from the instances, so that no job can touch them."""
    image: Image | None = None
    """Image of the jobs: the engine's with the runner in it (profiling-jobs/Dockerfile); submitting needs it."""
    shares: Annotated[Items[Share], Field(max_length=9)] = (0.5, 0.2)
    """Shares of a GPU that are measured beside whole GPUs, on clusters that hand out fractions."""
    budget: Annotated[Duration, Field(ge=60, le=86_400)] = 1800.0
    """Time for the measurement of one shape, the engine's start left out."""
    neighbours: Neighbours = "idle"
    """What the rest of a GPU does while a share is measured: `busy` draws on the memory bandwidth; under MPS only."""


class DriftSettings(Model):
    """When `scepsy drift --recompile` compiles again. Lost GPUs trigger it at once, whatever these say."""

    minimum_gain: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Part of the predicted latency that compiling again for other traffic must save: the mean over workflows, by their
    priority (`spec.replanning.minimumGain` decides whether a compile then changes the plan)."""
    cool_down: Annotated[Duration, Field(ge=0, le=30 * 86_400)] = 3600.0
    """How long after the last change of the plan it is not changed again."""
    settle: Annotated[Duration, Field(ge=0, le=86_400)] = 600.0
    """How long a lost node must be ready again, or a lost GPU healthy, before it is planned with."""


class ProjectSpec(Model):
    """Settings of the repository."""

    paths: Paths = Paths()
    """Directories."""
    namespace: KubernetesName = "scepsy"
    """Kubernetes namespace of everything that is rendered; claims cannot cross namespaces."""
    engine: EngineSettings = EngineSettings()
    """The serving engine."""
    gateway: GatewaySettings = GatewaySettings()
    """The gateway."""
    profiling: ProfilingSettings = ProfilingSettings()
    """How profiles are measured."""
    replanning: Replanning = Replanning()
    """When a compile may move what runs."""
    drift: DriftSettings = DriftSettings()
    """When drift detection compiles again."""
    pod_monitor: bool = False
    """Render PodMonitors. Without the Prometheus operator's CRD they keep Argo CD from syncing anything at all."""


class Project(Document):
    """A repository that uses Scepsy."""

    kind: Literal["Project"]
    """The kind of document."""
    metadata: Metadata
    """Its name."""
    spec: ProjectSpec = ProjectSpec()
    """Its content."""
