"""The Plan document: what was decided, why, how good it is, and from which inputs. Written by the compiler."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from scepsy.documents.cluster import Sharing
from scepsy.documents.model import (
    Document,
    GpuUuid,
    Image,
    InstanceName,
    Items,
    KubernetesName,
    Metadata,
    Model,
    ModelId,
    NodeName,
    Product,
    Revision,
)
from scepsy.documents.profile import ProfileSource, TensorParallel
from scepsy.documents.units import Duration, Memory, Rate, Share
from scepsy.documents.workflow import Objective, PodTemplate, Target

Fraction = Annotated[float, Field(ge=0)]


class Latency(Model):
    """Predicted latency of one execution."""

    mean: Duration
    """Mean, time outside LLMs included."""
    p50: Duration | None = None
    """Median over the recorded executions; like the other percentiles unset where none were recorded."""
    p95: Duration | None = None
    """95th percentile."""
    p99: Duration | None = None
    """99th percentile."""


class LatencyShare(Model):
    """What one LLM adds to a workflow's latency."""

    llm: KubernetesName
    """The LLM."""
    latency: Duration
    """Its part of the mean latency."""
    call: Duration
    """Mean latency of one call (of a whole group, when calls fan out)."""


class WorkflowPrediction(Model):
    """What the predictor says for a workflow under this plan."""

    latency: Latency
    """Latency at the target rates."""
    capacity: Rate
    """Rate of this workflow at which an LLM is saturated, the others at their targets; plans go up to 95 % of it."""
    slowdown: Fraction
    """Mean latency ÷ the least that this workflow alone could have on this cluster at its rate."""
    outside: Duration
    """Time outside LLMs on the path of an execution."""
    llms: Items[LatencyShare]
    """What each LLM adds."""
    executions: Annotated[int, Field(ge=1)] | None = None
    """Recorded executions that the percentiles rest on."""


class HeavyDemand(Model):
    """The heavy executions that the plan is for."""

    quantile: Annotated[float, Field(ge=0.5, lt=1)]
    """Part of the executions that spend at most the planned time in an LLM."""
    factors: dict[KubernetesName, Annotated[float, Field(ge=1)]]
    """Per LLM, planned load ÷ mean load."""


class FewestGpus(Model):
    """What planning for heavy executions costs: the fewest GPUs on which the targets were met."""

    planned: Annotated[int, Field(ge=1)]
    """With the demand that is planned for."""
    mean: Annotated[int, Field(ge=1)]
    """With the mean demand of every workflow."""


class PlannedWorkflow(Model):
    """A workflow that the plan serves."""

    name: KubernetesName
    """Its name."""
    target: Target
    """The rate that the plan is for."""
    priority: float
    """Its weight in the objective."""
    objective: Objective = Objective()
    """Its latency bounds."""
    demand: HeavyDemand | None = None
    """The quantile of demand that is planned for; unset for the mean."""
    predicted: WorkflowPrediction
    """What to expect."""


class ProfileReference(Model):
    """The profile of an LLM."""

    name: NodeName
    """The Profile."""
    source: ProfileSource
    """Measured, estimated or imported."""
    share_model: str | None = None
    """How the profile was extrapolated or interpolated from other GPU shares, such as a model's name; unset for
    profiled shares."""


class LlmPrediction(Model):
    """What the predictor says for an LLM under this plan."""

    load: Rate
    """Calls per second over all replicas."""
    utilisation: Fraction
    """Load ÷ capacity of all replicas."""
    uncertainty: Annotated[float, Field(ge=0)] | None = None
    """Half the width of the 95 % interval of R(k) ÷ R(k), at the mean number of calls that run; unset for profiles that
    are estimated or were not measured at this share and with such calls."""


class PlannedLlm(Model):
    """An LLM and the shape of its instances."""

    name: KubernetesName
    """What the agent code sends as `model`."""
    workflows: Items[KubernetesName]
    """The workflows that call it."""
    model: ModelId
    """The model."""
    revision: Revision | None = None
    """Its revision."""
    product: Product
    """GPU product of all its instances."""
    tp: TensorParallel
    """Tensor-parallel degree."""
    share: Share
    """Share of each GPU."""
    bandwidth: Annotated[float, Field(gt=0, le=1)] | None = None
    """Part of each card's memory bandwidth that its profile assumes an instance to have while it runs: what those that
    share its GPUs leave on average. Unset on whole GPUs."""
    replicas: Annotated[int, Field(ge=1)]
    """Instances."""
    max_model_len: Annotated[int, Field(ge=1)]
    """Longest call in tokens."""
    max_num_seqs: Annotated[int, Field(ge=1)]
    """Most calls that one instance runs at once; what its KV cache holds, at most what the spec says."""
    memory_per_gpu: Memory
    """What one instance may use of each of its GPUs."""
    kv_cache_per_gpu: Memory
    """Part of it that is KV cache."""
    weights: Memory
    """Size of the model's weights over all its GPUs."""
    pod_template: PodTemplate = PodTemplate()
    """Additions to its pods."""
    profile: ProfileReference
    """Its profile."""
    predicted: LlmPrediction
    """What to expect."""


class Instance(Model):
    """One running engine."""

    name: InstanceName
    """Name of its Deployment."""
    llm: KubernetesName
    """The LLM that it serves."""
    node: NodeName
    """Where."""
    gpus: Annotated[Items[GpuUuid], Field(min_length=1)]
    """UUIDs of its GPUs."""
    share: Share
    """Share of each of them."""
    wave: Annotated[int, Field(ge=0)] = 0
    """Argo CD sync wave; instances that share a GPU start one by one."""


class Proof(Model):
    """How good the plan is, and by what measure."""

    objective: str
    """What was minimised."""
    predictor: str
    """The predictor to which the bound belongs."""
    lower_bound: float
    """No plan on this cluster can be better: every allocation with a smaller objective was shown not to fit."""
    achieved: float
    """The objective of this plan."""
    gap: Fraction
    """(achieved − lowerBound) ÷ lowerBound; 0 when the plan is proven best."""
    unplaced_bound: float
    """The least objective if instances could be placed anywhere: the dynamic program over GPU units alone."""
    candidates: Annotated[int, Field(ge=0)]
    """Allocations that were tried, best first, until one could be placed."""


class Change(Model):
    """What the plan changed against the one before it; kept until instances change again."""

    started: Items[InstanceName] = ()
    """New instances."""
    moved: Items[InstanceName] = ()
    """Instances that restart on other GPUs or with another share."""
    removed: Items[InstanceName] = ()
    """Instances that go."""
    circles: Items[Items[InstanceName]] = ()
    """Instances that take GPUs from each other, and so share a wave."""


class FreeGpus(Model):
    """What the plan leaves unused."""

    gpus: Annotated[int, Field(ge=0)]
    """GPUs without any instance; reserved ones not counted."""
    largest_tensor_parallel: Annotated[int, Field(ge=0)]
    """Largest tensor-parallel group that could still be placed on them; 0 for none."""
    reserved: Annotated[int, Field(ge=0)] = 0
    """GPUs that the Cluster document reserves."""


class PlanSpec(Model):
    """The decision."""

    compiler: str
    """Program and version that wrote the plan."""
    cluster: KubernetesName
    """The cluster."""
    namespace: KubernetesName
    """Kubernetes namespace of all objects."""
    sharing: Sharing
    """How GPUs are shared."""
    engine_image: Image
    """The serving engine."""
    workflows: Items[PlannedWorkflow]
    """Per workflow what to expect."""
    llms: Items[PlannedLlm]
    """Per LLM the shape."""
    instances: Items[Instance]
    """Per instance the place."""
    change: Change | None = None
    """What moved; unset in the first plan of a cluster."""
    free: FreeGpus
    """What is left."""
    fewest_gpus: FewestGpus | None = None
    """What planning for a quantile of demand costs."""
    proof: Proof
    """How good it is."""
    warnings: Items[str] = ()
    """What a reviewer should know."""
    inputs: dict[str, str]
    """Digest of every input file, by path in the repository."""
    files: dict[str, str] = {}
    """Digest of every file that the compiler wrote besides this one; it removes only these."""
    digest: str = ""
    """Digest of all that stands here, `files` excepted: what was edited by hand is compiled again."""

    def content_digest(self) -> str:
        """Return what `digest` is in a plan that nobody edited."""
        plain = self.model_copy(update={"files": {}, "digest": ""}).plain()
        return "sha256:" + hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


class Plan(Document):
    """What the compiler decided for one cluster."""

    kind: Literal["Plan"]
    """The kind of document."""
    metadata: Metadata
    """Name of the cluster."""
    spec: PlanSpec
    """The decision."""
