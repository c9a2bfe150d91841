"""Checks on documents that no single field can express: unique names, references, values that contradict each other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from scepsy.documents.cluster import Cluster
from scepsy.documents.diagnostics import Diagnostic, did_you_mean
from scepsy.documents.loading import Loaded
from scepsy.documents.model import Document
from scepsy.documents.profile import Profile, contradiction
from scepsy.documents.project import Project
from scepsy.documents.workflow import Workflow

D = TypeVar("D", bound=Document)

OLDEST_ENGINE = (0, 18)
"""The oldest vLLM that has every rendered flag; --shutdown-timeout is the newest flag."""


def check_engine(project: Loaded[Project]) -> list[Diagnostic]:
    """Return a problem if the engine is too old for the flags that are rendered."""
    version = project.document.spec.engine.version
    if tuple(int(part) for part in re.findall(r"[0-9]+", version)[:2]) >= OLDEST_ENGINE:
        return []
    message = (
        f"vLLM {version} is too old: it lacks --shutdown-timeout; 0.18 is the oldest version with all rendered flags"
    )
    return [project.problem(("spec", "engine", "version"), message, "use a newer engine image")]


def check_workflow(loaded: Loaded[Workflow]) -> list[Diagnostic]:
    """Check names inside one workflow: unique LLMs, statistics that name LLMs, every LLM called."""
    spec = loaded.document.spec
    problems = _duplicates(loaded, "llms", [llm.name for llm in spec.llms])
    names = [llm.name for llm in spec.llms]
    for index, llm in enumerate(spec.llms):
        problems.extend(_check_pod_template(loaded, index))
        if len(set(llm.tensor_parallel)) != len(llm.tensor_parallel):
            problems.append(loaded.problem(("spec", "llms", index, "tensorParallel"), "a degree is given twice"))
    statistics = spec.demand.statistics
    if statistics is not None:
        where = ("spec", "demand", "statistics", "llms")
        called = [entry.llm for entry in statistics.llms]
        for index, name in enumerate(called):
            if name not in names:
                hint = did_you_mean(name, names)
                problems.append(loaded.problem((*where, index, "llm"), f'unknown LLM "{name}"', hint))
            if name in called[:index]:
                problems.append(loaded.problem((*where, index, "llm"), f'statistics for "{name}" are given twice'))
        for index, name in enumerate(names):
            if name not in called:
                problems.append(
                    loaded.problem(
                        ("spec", "llms", index, "name"),
                        f'the demand has no statistics for "{name}"',
                        "add it to spec.demand.statistics.llms, or remove the LLM",
                    )
                )
    return problems


_RESERVED_ENV = {"HF_HOME", "HF_TOKEN", "HOME", "VLLM_PORT"}


def _check_pod_template(loaded: Loaded[Workflow], index: int) -> list[Diagnostic]:
    """Check that an overlay leaves the labels and variables that Scepsy sets."""
    template = loaded.document.spec.llms[index].pod_template
    where = ("spec", "llms", index, "podTemplate")
    problems = []
    for key in template.labels:
        if key.startswith(("app.kubernetes.io/", "scepsy.dev/")):
            problems.append(loaded.problem((*where, "labels", key), f'the label "{key}" is set by Scepsy', "remove it"))
    for key in template.env:
        if key in _RESERVED_ENV or key.startswith(("CUDA_", "NVIDIA_")):
            problems.append(loaded.problem((*where, "env", key), f'the variable "{key}" is set by Scepsy', "remove it"))
    for key in template.node_selector:
        if key == "kubernetes.io/hostname":
            problems.append(
                loaded.problem(
                    (*where, "nodeSelector", key), "the node is set by the plan", "use reserved GPUs instead"
                )
            )
    return problems


def check_cluster(loaded: Loaded[Cluster]) -> list[Diagnostic]:
    """Return what is wrong with a cluster beyond its fields: names and UUIDs twice, indices and domains that clash."""
    nodes = loaded.document.spec.nodes
    problems = _duplicates(loaded, "nodes", [node.name for node in nodes])
    seen: dict[str, str] = {}
    for n, node in enumerate(nodes):
        for g, gpu in enumerate(node.gpus):
            where = ("spec", "nodes", n, "gpus", g, "uuid")
            if gpu.uuid in seen:
                problems.append(loaded.problem(where, f'the UUID "{gpu.uuid}" is also in node "{seen[gpu.uuid]}"'))
            seen.setdefault(gpu.uuid, node.name)
            if gpu.memory < 2**30:
                message = "a GPU with less than 1Gi of memory"
                problems.append(loaded.problem((*where[:-1], "memory"), message, "is the unit right? write 80Gi"))
        placed: dict[int, int] = {}
        for d, domain in enumerate(node.nvlink_domains):
            for i, gpu_index in enumerate(domain):
                place = ("spec", "nodes", n, "nvlinkDomains", d, i)
                if gpu_index >= len(node.gpus):
                    message = f"GPU {gpu_index} does not exist: the node has {len(node.gpus)}, counted from 0"
                    problems.append(loaded.problem(place, message))
                elif gpu_index in placed:
                    other = "twice in this domain" if placed[gpu_index] == d else f"also in domain {placed[gpu_index]}"
                    message = f"GPU {gpu_index} is {other}"
                    problems.append(loaded.problem(place, message, "NVLink domains may not overlap"))
                placed.setdefault(gpu_index, d)
        for i, gpu_index in enumerate(node.reserved):
            if gpu_index >= len(node.gpus):
                message = f"GPU {gpu_index} does not exist: the node has {len(node.gpus)}, counted from 0"
                problems.append(loaded.problem(("spec", "nodes", n, "reserved", i), message))
    return problems


def check_shared_llms(workflows: Iterable[Loaded[Workflow]]) -> list[Diagnostic]:
    """Check that workflows that share an LLM, by its name, define it in the same way."""
    problems: list[Diagnostic] = []
    first: dict[str, tuple[Loaded[Workflow], int]] = {}
    for loaded in workflows:
        for index, llm in enumerate(loaded.document.spec.llms):
            if llm.name not in first:
                first[llm.name] = (loaded, index)
                continue
            other, other_index = first[llm.name]
            if other is loaded:
                continue
            earlier = other.document.spec.llms[other_index]
            for key in ("model", "revision", "max_model_len", "max_num_seqs", "tensor_parallel", "pod_template"):
                if getattr(llm, key) != getattr(earlier, key):
                    alias = type(llm).model_fields[key].alias or key
                    place = other.source.position("spec", "llms", other_index, "name")
                    problems.append(
                        loaded.problem(
                            ("spec", "llms", index, alias),
                            f'workflow "{other.document.metadata.name}" calls the LLM "{llm.name}" too ({place}),'
                            f" but with another {alias}",
                            "an LLM is shared by its name: make both the same, or rename one",
                        )
                    )
    return problems


def check_profiles(profiles: Iterable[Loaded[Profile]]) -> list[Diagnostic]:
    """TP must divide the attention heads, latencies be the sum of their parts, profiles of one model agree on it."""
    problems: list[Diagnostic] = []
    first: dict[str, Loaded[Profile]] = {}
    for loaded in profiles:
        spec = loaded.document.spec
        where: tuple[str | int, ...]
        for index, series in enumerate(spec.series):
            heads = spec.architecture.attention_heads
            if heads % series.tp:
                where = ("spec", "series", index, "tp")
                message = f"tensor parallelism {series.tp} does not divide the model's {heads} attention heads"
                problems.append(loaded.problem(where, message))
            if series.mix.cached > series.mix.input:
                where = ("spec", "series", index, "mix", "cached")
                problems.append(loaded.problem(where, "cached is above input: cached tokens are part of the prompt"))
            for at, point in enumerate(series.points):
                wrong = contradiction(point, series.mix)
                if wrong is not None:
                    problems.append(loaded.problem(("spec", "series", index, "points", at, "latency"), wrong))
        other = first.setdefault(spec.model, loaded)
        if other.document.spec.architecture != spec.architecture:
            place = other.source.position("spec", "architecture")
            message = f"the architecture of {spec.model} differs from the one at {place}"
            problems.append(loaded.problem(("spec", "architecture"), message))
    return problems


def _duplicates(loaded: Loaded[D], key: str, names: list[str]) -> list[Diagnostic]:
    return [
        loaded.problem(("spec", key, index, "name"), f'the name "{name}" is already used by entry {names.index(name)}')
        for index, name in enumerate(names)
        if name in names[:index]
    ]
