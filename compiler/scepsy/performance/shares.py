"""The share model: what a fraction of a GPU costs where it was not measured (section 2.6 of the model).

Under NVIDIA MPS an instance with the share φ may use φ of the streaming multiprocessors (SMs). Prefill is bound by
arithmetic: it slows by 1/φ. A decode step is bound by memory bandwidth, of which few SMs already draw much: φ of them
draw b(φ) = (1+c)·φ ÷ (φ+c) of what all draw, so a step slows by 1/b(φ), until so many calls run that arithmetic binds
it too: k calls cost at least k times the prefill time of a token, and that part slows by 1/φ.

c = 0.25 is the literature's shape (a third of the SMs draws about 70 % of the bandwidth), not a measurement on a
particular card: figures that rest on it are marked with the name of this model, which says `uncalibrated`.

Co-tenants share one memory bandwidth. A decode step of the whole GPU moves the weights once, so it draws (weights ÷
step time) ÷ the card's bandwidth; at the share φ an instance draws b(φ) times that while it is busy. Placement keeps
the sum of these averages over the tenants of a GPU at or below 1, or sharing would look free.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SHARE_MODEL = "sm-roofline-uncalibrated"
SATURATION = 0.25
"""c of b(φ)."""

CARD_BANDWIDTH = {
    "NVIDIA-A100-SXM4-40GB": 1.555e12,
    "NVIDIA-A100-SXM4-80GB": 2.039e12,
    "NVIDIA-H100-80GB-HBM3": 3.35e12,
    "NVIDIA-H200": 4.8e12,
    "NVIDIA-L40S": 0.864e12,
}
"""Memory bandwidth in bytes per second, from NVIDIA's data sheets."""


def bandwidth(share: float) -> float:
    """Return b(φ), the part of a card's memory bandwidth that `share` of its SMs can draw."""
    return (1 + SATURATION) * share / (share + SATURATION)


def slowed(prefill: Array, decode: Array, token: float, share: float) -> tuple[Array, Array]:
    """Take the times of a whole GPU to a share of it.

    Args:
        prefill: seconds of a call before its first token, at k = 1, 2, … calls.
        decode: seconds per further token, at the same k.
        token: seconds of arithmetic per prompt token on the whole GPU.
        share: φ, 0 < φ ≤ 1.

    Returns:
        prefill and decode at the share.
    """
    k = np.arange(1, len(decode) + 1)
    arithmetic = np.minimum(decode, k * token)
    return prefill / share, np.maximum(decode / bandwidth(share), arithmetic / share)


def drawn(product: str, weights: int, step: float, share: float) -> float:
    """Return the part of a card's memory bandwidth that a busy instance draws, at most b(φ).

    Args:
        product: GPU product; of one without a known bandwidth the worst is assumed.
        weights: bytes of weights on one GPU.
        step: seconds of a decode step of one call on the whole GPU; 0 for calls that decode nothing.
        share: φ.
    """
    if step <= 0 or product not in CARD_BANDWIDTH:
        return bandwidth(share)
    return bandwidth(share) * min(1.0, weights / step / CARD_BANDWIDTH[product])
