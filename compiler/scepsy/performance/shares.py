"""Shares of a GPU: what was not measured there, and the bandwidth that co-tenants draw (section 2.6 of the model).

Under NVIDIA MPS an instance with the share φ may use φ of the streaming multiprocessors (SMs). What that costs is
measured, or else follows from the roofline of `roofline.py`: prefill is bound by arithmetic and slows by a little less
than 1/φ; a decode step is bound by memory bandwidth, most of which a third of the SMs draws, until so many calls run
that arithmetic binds it too; launches, the host and all-reduces do not slow. Its constants are published figures of
kernels, not a measurement of any model on a share: figures that rest on it are marked with its name, which says
`uncalibrated`.

Where a model was measured at other shares, their figures are taken: between two, the ratio of what was measured to what
the model carries over from the larger share is interpolated over log φ; never is a smaller share faster.

Co-tenants share one memory bandwidth. A decode step moves the weights once, so an instance draws (weights ÷ step time)
÷ the card's bandwidth while it is busy, at most b(φ). Placement keeps the sum of these averages over the tenants of a
GPU at or below 1, or sharing would look free.
"""

from __future__ import annotations

from scepsy.performance.roofline import CARDS, Array, bandwidth

__all__ = ["INTERPOLATED", "SHARE_MODEL", "Array", "bandwidth", "drawn"]

SHARE_MODEL = "sm-roofline-uncalibrated"
"""How figures of other shares are taken to a share that was not profiled."""
INTERPOLATED = "interpolated between"
"""How the words begin that stand for it where shares on both sides were profiled."""


def drawn(product: str, weights: int, step: float, share: float) -> float:
    """Return the part of a card's memory bandwidth that a busy instance draws, at most b(φ).

    Args:
        product: GPU product; of one without a known bandwidth the worst is assumed.
        weights: bytes of weights on one GPU.
        step: seconds of a decode step of one call on this share; 0 for calls that decode nothing.
        share: φ.
    """
    most = bandwidth(share, product)
    if step <= 0 or product not in CARDS:
        return most
    return min(most, weights / step / CARDS[product].bandwidth)
