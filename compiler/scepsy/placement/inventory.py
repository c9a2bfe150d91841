"""The GPUs that the planner may use, by product and NVLink domain."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scepsy.documents import Cluster
from scepsy.sharing import backend_of


@dataclass(frozen=True, slots=True)
class Domain:
    """GPUs of one node that NVLink connects.

    Attributes:
        node: the node.
        gpus: UUIDs, in the order of the Cluster document; reserved ones left out.
    """

    node: str
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Inventory:
    """What there is to place on.

    Attributes:
        domains: per product, in the order of the Cluster document.
        card: per product, bytes of memory of its smallest card.
        reserved: GPUs left alone.
        fractions: whether a GPU may be shared.
        shared_groups: whether tensor-parallel groups may share their GPUs too.
        nodes: every node of the cluster, those without a usable GPU too.
    """

    domains: dict[str, tuple[Domain, ...]]
    card: dict[str, int]
    reserved: int
    fractions: bool
    nodes: frozenset[str] = frozenset()
    shared_groups: bool = True

    @property
    def products(self) -> list[str]:
        """The products, in name order."""
        return sorted(self.domains)

    def gpus(self, product: str) -> int:
        """Return how many GPUs of a product may be used."""
        return sum(len(domain.gpus) for domain in self.domains[product])

    def product(self, gpu: str) -> str:
        """Return the product of a GPU that may be used.

        Raises:
            KeyError: there is none of this UUID.
        """
        for product, domains in self.domains.items():
            if any(gpu in domain.gpus for domain in domains):
                return product
        raise KeyError(gpu)

    def groups(self, product: str, size: int) -> int:
        """Return how many groups of `size` GPUs inside one domain there are."""
        return sum(len(domain.gpus) // size for domain in self.domains[product])

    def without_one(self, product: str) -> Inventory:
        """Return the inventory with one GPU of a product less, taken from its smallest domain."""
        domains_of_product = self.domains[product]
        smallest = min(range(len(domains_of_product)), key=lambda d: (len(domains_of_product[d].gpus), -d))
        left = [Domain(d.node, d.gpus[:-1] if i == smallest else d.gpus) for i, d in enumerate(domains_of_product)]
        domains = {**self.domains, product: tuple(domain for domain in left if domain.gpus)}
        return replace(self, domains={p: d for p, d in domains.items() if d})

    def limited(self, product: str, count: int) -> Inventory:
        """Return the inventory with at most `count` GPUs of a product, from its largest domains."""
        kept: dict[int, Domain] = {}
        left = count
        domains_of_product = self.domains[product]
        for i in sorted(range(len(domains_of_product)), key=lambda i: (-len(domains_of_product[i].gpus), i)):
            if left > 0:
                kept[i] = Domain(domains_of_product[i].node, domains_of_product[i].gpus[:left])
                left -= len(kept[i].gpus)
        domains = {**self.domains, product: tuple(kept[i] for i in sorted(kept))}
        return replace(self, domains={p: d for p, d in domains.items() if d})

    def extended(self, product: str, extra: int) -> Inventory:
        """Return the inventory with `extra` more GPUs of a product, as nodes like its largest domain."""
        size = max(len(domain.gpus) for domain in self.domains[product])
        added = []
        for first in range(0, extra, size):
            count = min(size, extra - first)
            added.append(Domain(f"extra-{first}", tuple(f"GPU-extra-{first + i}" for i in range(count))))
        domains = {**self.domains, product: (*self.domains[product], *added)}
        return replace(self, domains=domains)


def inventory_of(cluster: Cluster) -> Inventory:
    """Return the usable GPUs of a cluster; a GPU in no NVLink domain is its own domain."""
    domains: dict[str, list[Domain]] = {}
    card: dict[str, int] = {}
    reserved = 0
    for node in cluster.spec.nodes:
        kept_back = set(node.reserved)
        reserved += len(kept_back)
        connected = {i for domain in node.nvlink_domains for i in domain}
        sets = [*node.nvlink_domains, *((i,) for i in range(len(node.gpus)) if i not in connected)]
        for members in sorted(tuple(sorted(s)) for s in sets):
            usable = tuple(node.gpus[i].uuid for i in members if i not in kept_back)
            if usable:
                domains.setdefault(node.product, []).append(Domain(node.name, usable))
                smallest = min(node.gpus[i].memory for i in members if i not in kept_back)
                card[node.product] = min(card.get(node.product, smallest), smallest)
    nodes = frozenset(node.name for node in cluster.spec.nodes)
    sharing = backend_of(cluster.spec.sharing)
    return Inventory(
        domains={p: tuple(d) for p, d in domains.items()},
        card=card,
        reserved=reserved,
        fractions=sharing.fractions,
        nodes=nodes,
        shared_groups=sharing.group_fractions,
    )
