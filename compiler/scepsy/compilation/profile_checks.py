"""Checks of a workflow against the profiles: every model has one that fits the cluster, and calls fit the model."""

from __future__ import annotations

from scepsy.demand import Demand
from scepsy.demand.workflow_demand import length_problem
from scepsy.documents import Cluster, Diagnostic, Loaded, Workflow, did_you_mean
from scepsy.performance import Catalog
from scepsy.placement import Inventory

WHAT_TO_MEASURE = "scepsy profile plan lists what to measure"
"""Hint of every message about a stale profile."""


def model_problems(
    workflow: Loaded[Workflow], cluster: Cluster, catalog: Catalog, inventory: Inventory
) -> list[Diagnostic]:
    """Return the LLMs without a usable profile for the cluster, at an allowed degree that divides the model's heads.

    Args:
        workflow: the workflow.
        cluster: the cluster.
        catalog: the profiles.
        inventory: the cluster's GPUs.
    """
    problems = []
    for index, llm in enumerate(workflow.document.spec.llms):
        where = ("spec", "llms", index)
        if llm.model not in catalog.models:
            hint = did_you_mean(llm.model, catalog.models) + "; or add a Profile of the model"
            problems.append(
                workflow.problem((*where, "model"), f"no profile for the model {llm.model}", hint.strip("; "))
            )
            continue
        architecture = catalog.architecture(llm.model)
        for i, tp in enumerate(llm.tensor_parallel):
            if architecture.attention_heads % tp:
                heads = architecture.attention_heads
                message = f"tensor parallelism {tp} does not divide the model's {heads} attention heads"
                problems.append(workflow.problem((*where, "tensorParallel", i), message))
        if llm.max_model_len and llm.max_model_len > architecture.context_length:
            message = f"maxModelLen exceeds the model's context length of {architecture.context_length:,} tokens"
            problems.append(workflow.problem((*where, "maxModelLen"), message))
        degrees = {tp for product in inventory.products for tp in catalog.degrees(llm.model, product, llm.revision)}
        if not degrees:
            outdated = catalog.outdated(llm.model, llm.revision, inventory.products)
            stale = "; ".join(f"profile {name} is stale: {reason}" for name, reason in outdated)
            message = f"no usable profile of {llm.model} on a GPU of cluster {cluster.metadata.name}"
            has = ", ".join(catalog.products(llm.model, llm.revision)) or "no GPU"
            hint = f"profiled on: {has}; the cluster has: {', '.join(inventory.products)}"
            if stale:
                hint = f"{hint}; {stale}; {WHAT_TO_MEASURE}"
            problems.append(workflow.problem((*where, "model"), message, hint))
        elif llm.tensor_parallel and not degrees & set(llm.tensor_parallel):
            message = f"no profile of these tensor-parallel degrees; profiled: {sorted(degrees)}"
            problems.append(workflow.problem((*where, "tensorParallel"), message))
    return problems


def length_problems(workflow: Loaded[Workflow], demand: Demand, catalog: Catalog) -> list[Diagnostic]:
    """Return the LLMs whose longest call is above the limit; models without profiles are reported elsewhere."""
    checked = (
        length_problem(workflow, index, demand, catalog.architecture(llm.model).context_length)
        for index, llm in enumerate(workflow.document.spec.llms)
        if llm.model in catalog.models
    )
    return [problem for problem in checked if problem]
