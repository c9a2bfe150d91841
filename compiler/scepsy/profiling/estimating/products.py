"""GPU products of which there are tables of kernels."""

from __future__ import annotations

from typing import NamedTuple

from scepsy.documents import did_you_mean
from scepsy.errors import ScepsyError

ENGINE = "vllm"
"""The engine whose tables are used."""


class Product(NamedTuple):
    """A GPU product and the table that stands for it.

    Attributes:
        name: the value of the `nvidia.com/gpu.product` label.
        slug: short name, for file names.
        system: AIConfigurator's name of it.
        version: engine version of the table.
        budget: tokens per engine step: vLLM's default of `--max-num-batched-tokens` for a server, which is 8192 on
            cards of 70 GiB and more other than the A100, and 2048 on others (`EngineArgs.get_batch_defaults`).
    """

    name: str
    slug: str
    system: str
    version: str
    budget: int


PRODUCTS = (
    Product("NVIDIA-A100-SXM4-80GB", "a100", "a100_sxm", "0.14.0", 2048),
    Product("NVIDIA-B200", "b200", "b200_sxm", "0.24.0", 8192),
    Product("NVIDIA-H100-80GB-HBM3", "h100", "h100_sxm", "0.24.0", 8192),
    Product("NVIDIA-H200", "h200", "h200_sxm", "0.24.0", 8192),
    Product("NVIDIA-L40S", "l40s", "l40s", "0.24.0", 2048),
)
"""What can be estimated for."""


def product_of(name: str) -> Product:
    """Return the product of that name.

    Raises:
        ScepsyError: there is no table for it.
    """
    names = [product.name for product in PRODUCTS]
    if name not in names:
        raise ScepsyError(
            f'there are no estimates for the product "{name}"; there are for: {", ".join(names)}',
            did_you_mean(name, names) or "the name is the value of the node label nvidia.com/gpu.product",
        )
    return PRODUCTS[names.index(name)]
