"""What fits into an instance's share of GPU memory (section 2.5 of the model)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scepsy.documents import Architecture

GIB = 1 << 30
MIB = 1 << 20

CARD_RESERVE = GIB
"""Bytes of each GPU that no instance gets: driver, MPS server, and the page tables of all contexts."""
ENGINE_OVERHEAD = 5 * GIB // 2
"""Bytes that one engine process keeps per GPU beside weights and KV cache: CUDA context (about 0.5 GiB), CUDA graphs,
and the activations of one step of 8,192 tokens. An estimate; profiles do not have it."""


@dataclass(frozen=True, slots=True)
class InstanceMemory:
    """How one instance divides its part of each of its GPUs; bytes per GPU.

    Attributes:
        total: what it may use.
        weights: model weights.
        kv_cache: KV cache; negative when the weights do not fit.
        kv_per_token: KV cache of one token.
    """

    total: int
    weights: int
    kv_cache: int
    kv_per_token: int

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return max(0, self.kv_cache) // self.kv_per_token


def fit(architecture: Architecture, card: int, tp: int, tenths: int) -> InstanceMemory:
    """Return the memory of an instance.

    Weights are divided by the tensor-parallel degree. A GPU holds 2 · layers · ceil(kv_heads ÷ tp) · head_dim elements
    of KV cache per token: beyond their number, key-value heads are replicated, not divided.

    Args:
        architecture: the model.
        card: bytes of one GPU.
        tp: tensor-parallel degree.
        tenths: share of each GPU in tenths.
    """
    total = (card - CARD_RESERVE) * tenths // 10 // MIB * MIB
    weights = math.ceil(architecture.parameters * architecture.bytes_per_parameter / tp)
    heads = math.ceil(architecture.kv_heads / tp)
    per_token = math.ceil(2 * architecture.layers * heads * architecture.head_dim * architecture.kv_bytes_per_element)
    kv_cache = (total - weights - ENGINE_OVERHEAD) // MIB * MIB
    return InstanceMemory(total, weights, kv_cache, per_token)
