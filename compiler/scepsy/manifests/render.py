"""Plan → files: every Kubernetes object of a namespace."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scepsy.documents.canonical_yaml import emit
from scepsy.documents.cluster import Cluster
from scepsy.documents.plan import Instance, Plan, PlannedLlm
from scepsy.documents.project import Project
from scepsy.documents.units import format_memory
from scepsy.manifests import engine, gateway
from scepsy.manifests.plan_checks import check
from scepsy.manifests.resource_claims import claims
from scepsy.manifests.template import Templates
from scepsy.sharing import backend_of

PART_OF = {"app.kubernetes.io/part-of": "scepsy", "app.kubernetes.io/managed-by": "scepsy"}
ENGINE = {"app.kubernetes.io/name": "vllm", "app.kubernetes.io/component": "engine"}
GATEWAY = {"app.kubernetes.io/name": "haproxy", "app.kubernetes.io/component": "gateway"}
# No app.kubernetes.io/instance: where Argo CD tracks by label it writes that one, also into selectors' pods.


def render(plan: Plan, cluster: Cluster, project: Project, overrides: Path | None = None) -> dict[str, bytes]:
    """Return the manifests of a plan, one object per file.

    The same arguments give the same bytes. Everything but the instances is in sync wave 0; they are in the Plan's.

    Args:
        plan: what was decided.
        cluster: where.
        project: settings that all share.
        overrides: a directory of templates that replace shipped ones of the same name.

    Returns:
        YAML by file name, `<kind>-<name>.yaml` in lower case, for `rendered/<cluster>/<namespace>/`.

    Raises:
        UnsafePlan: the plan cannot run as it says.
        BadPodTemplate: Kubernetes would refuse what a `podTemplate` adds.
        BodyTooLarge: the gateway cannot buffer `maxBody`.
        DocumentError: an override is wrong.
    """
    check(plan, cluster)
    room = _Room(plan, cluster, project, Templates(overrides))
    objects = [*room.claims(), *room.engines(), *room.gateway()]
    files = {f"{item['kind'].lower()}-{item['metadata']['name']}.yaml": emit(item) for item in objects}
    return dict(sorted(files.items()))


class _Room:
    """What the objects of one namespace are rendered from."""

    def __init__(self, plan: Plan, cluster: Cluster, project: Project, templates: Templates) -> None:
        self.plan = plan
        self.settings = project.spec
        self.templates = templates
        self.cards = {gpu.uuid: gpu.memory for node in cluster.spec.nodes for gpu in node.gpus}
        self.claim_of: dict[str, str] = {}

    def object(self, template: str, name: str, labels: Mapping[str, str], **values: Any) -> dict[str, Any]:
        common = {"name": name, "namespace": self.plan.spec.namespace, "labels": {**labels, **PART_OF}}
        return self.templates.object(template, {**common, **values})

    def hashed(
        self, template: str, prefix: str, content: str, labels: Mapping[str, str], **values: Any
    ) -> dict[str, Any]:
        """Render an object whose name ends in the hash of its content, which must never change under one name."""
        draft = self.object(template, prefix, labels, **values)
        digest = hashlib.sha256(json.dumps(draft.get(content), sort_keys=True).encode()).hexdigest()[:10]
        return self.object(template, f"{prefix}-{digest}", labels, **values)

    def claims(self) -> list[dict[str, Any]]:
        objects = []
        for item in claims(self.plan):
            rendered = self.hashed(
                "resourceclaim.yaml.j2",
                item.prefix,
                "spec",
                ENGINE,
                driver=item.driver,
                requests=[
                    {
                        "name": request.name,
                        "count": request.count,
                        "selector": request.selector(item.driver),
                        "capacity": request.capacity,
                    }
                    for request in item.requests
                ],
                parameters=item.parameters,
                # Deprecated: for overrides of this template that were written before `parameters`.
                mps=item.parameters is not None,
            )
            self.claim_of |= dict.fromkeys(item.instances, rendered["metadata"]["name"])
            objects.append(rendered)
        return objects

    def engines(self) -> list[dict[str, Any]]:
        llms = {llm.name: llm for llm in self.plan.spec.llms}
        objects = []
        for llm in llms.values():
            labels = ENGINE | {"scepsy.dev/llm": llm.name}
            selector = {"scepsy.dev/llm": llm.name}
            objects.append(self.object("service-llm.yaml.j2", f"llm-{llm.name}", labels, selector=selector))
            objects.append(self.budget(f"llm-{llm.name}", labels, selector, llm.replicas))
        for instance in self.plan.spec.instances:
            llm = llms[instance.llm]
            labels = ENGINE | {"scepsy.dev/llm": llm.name, "scepsy.dev/instance": instance.name}
            selector = {"scepsy.dev/instance": instance.name}
            objects.append(self.deployment(instance, llm, labels, selector))
            name = gateway.service(instance.name)
            objects.append(self.object("service-engine.yaml.j2", name, labels, selector=selector))
        if self.settings.pod_monitor:
            selector = {"app.kubernetes.io/component": "engine", **PART_OF}
            values = {"selector": selector, "port": "http", "path": "/metrics"}
            objects.append(self.object("podmonitor.yaml.j2", "engines", ENGINE, **values))
        return objects

    def budget(
        self, name: str, labels: Mapping[str, str], selector: Mapping[str, str], replicas: int
    ) -> dict[str, Any]:
        template = "poddisruptionbudget.yaml.j2"
        return self.object(template, name, labels, selector=selector, min_available=replicas - 1)

    def deployment(
        self, instance: Instance, llm: PlannedLlm, labels: Mapping[str, str], selector: Mapping[str, str]
    ) -> dict[str, Any]:
        added = engine.overlay(llm.name, llm.pod_template)
        settings = self.settings.engine
        startup = engine.startup_seconds(llm.weights)
        sharing = self.plan.spec.sharing
        driver_shm = backend_of(sharing).mounts_shm(instance.share)
        cache = settings.cache
        return self.object(
            "deployment-engine.yaml.j2",
            instance.name,
            labels,
            wave=str(instance.wave),
            selector=selector,
            pod_labels={**added["labels"], **labels, **PART_OF},
            pod_annotations=added["annotations"],
            node_selector={**added["node_selector"], "kubernetes.io/hostname": instance.node},
            tolerations=added["tolerations"],
            priority_class=settings.priority_class,
            image=self.plan.spec.engine_image,
            arguments=engine.arguments(llm, min(self.cards[uuid] for uuid in instance.gpus), sharing),
            environment=engine.environment(instance, llm, settings, sharing),
            requests=engine.requests(llm),
            claim=self.claim_of[instance.name],
            port=engine.PORT,
            user=engine.USER,
            home=engine.HOME,
            cache=engine.CACHE,
            cache_claim=cache.claim_name,
            cache_limit=format_memory(cache.size_limit) if cache.size_limit is not None else None,
            # Where the driver mounts /dev/shm, this one would hide it.
            shm_limit=format_memory(engine.SHM) if llm.tp > 1 and not driver_shm else None,
            startup_period=engine.STARTUP_PROBE_PERIOD,
            startup_failures=-(-startup // engine.STARTUP_PROBE_PERIOD),
            progress_deadline=startup + engine.START,
            pre_stop=engine.PRE_STOP,
            grace=engine.GRACE,
        )

    def gateway(self) -> list[dict[str, Any]]:
        settings = self.settings.gateway
        backends = gateway.backends(self.plan)
        size = gateway.sizes(backends, settings.max_body)
        config = gateway.gateway_config(backends, max_body=settings.max_body, templates=self.templates)
        config_map = self.hashed("configmap-gateway.yaml.j2", "gateway", "data", GATEWAY, config=config)
        ports = {"port": gateway.LISTEN_PORT, "metrics_port": gateway.METRICS_PORT}
        selector = {**GATEWAY, **PART_OF}
        deployment = self.object(
            "deployment-gateway.yaml.j2",
            "gateway",
            GATEWAY,
            selector=selector,
            replicas=settings.replicas,
            image=settings.image,
            config_map=config_map["metadata"]["name"],
            priority_class=self.settings.engine.priority_class,
            user=gateway.USER,
            memory_request=format_memory(size.memory_request),
            memory_limit=format_memory(size.memory_limit),
            pre_stop=gateway.PRE_STOP,
            grace=gateway.GRACE,
            **ports,
        )
        objects = [
            config_map,
            deployment,
            self.object(
                "service-gateway.yaml.j2", "gateway", GATEWAY, selector=selector, affinity=gateway.SILENCE, **ports
            ),
            self.budget("gateway", GATEWAY, selector, settings.replicas),
        ]
        if self.settings.pod_monitor:
            # Two objects, and so two jobs: targets of one job that differ only in their path would be taken for one.
            for name, path in (("gateway", "/metrics"), ("gateway-workflows", gateway.COUNTS_PATH)):
                values = {"selector": selector, "port": "metrics", "path": path}
                objects.append(self.object("podmonitor.yaml.j2", name, GATEWAY, **values))
        return objects
