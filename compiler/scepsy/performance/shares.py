"""Shares of a GPU: what was not measured there, and the bandwidth that co-tenants leave (section 2.6 of the model).

Under NVIDIA MPS an instance with the share φ may use φ of the streaming multiprocessors (SMs). What that costs is
measured, or else follows from the roofline of `roofline.py`: prefill is bound by arithmetic and slows by a little less
than 1/φ; a decode step is bound by memory bandwidth, most of which a third of the SMs draws, until so many calls run
that arithmetic binds it too; launches, the host and all-reduces do not slow. Its constants are published figures of
kernels, not a measurement of any model on a share: figures that rest on it are marked with its name, which says
`uncalibrated`.

Where a model was measured at other shares, their figures are taken: between two, the ratio of what was measured to what
the model carries over from the larger share is interpolated over log φ; never is a smaller share faster.

Co-tenants share one memory bandwidth. The figures of an instance hold if it can read at the rate c that they assume:
b(φ) without neighbours, or one of the `caps` below it, at which its steps take longer. Averaged over time it reads m,
which its load decides and the cap hardly changes (m ≤ c · the part of the time in which it is busy). Placement lets
instances share a GPU only if for each of them

    c_i + Σ_{j≠i} m_j ≤ 1,   that is   Σ_j m_j + max_i (c_i − m_i) ≤ 1 :

what the others leave on average is what it was assumed to have. That is a mean field, right to first order for tenants
that are busy at independent times: of two that decode on half a card each, it predicts the latency within 5 %, where
either alone would be 31 % faster at averages of 0.4 (a simulation, `tests/pipeline/test_instances.py`).

All bandwidths here are parts of what a whole GPU reads at in the engine's kernels (`roofline.MEMORY` of the data
sheet's), so that two instances held to one half each read together as fast as one with the whole GPU. That kernels of
two engines, run side by side, may reach more of the data sheet's bandwidth than those of one is not counted on.
"""

from __future__ import annotations

from scepsy.performance.roofline import Array, bandwidth

__all__ = ["CAPS", "INTERPOLATED", "SHARE_MODEL", "Array", "bandwidth", "caps"]

SHARE_MODEL = "sm-roofline-uncalibrated"
"""How figures of other shares are taken to a share that was not profiled."""
INTERPOLATED = "interpolated between"
"""How the words begin that stand for it where shares on both sides were profiled."""
CAPS = (0.8, 0.65, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Parts of the card's memory bandwidth to which an instance may be held so that others can use the rest; closer where
two would meet that are busy half of the time."""


def caps(share: float, product: str) -> tuple[float, ...]:
    """Return the parts of the bandwidth that an instance may be planned with: b(φ), and some less.

    Those next to b(φ) would free too little; of an instance that is held to less than half of it, a smaller share does
    as well.

    Args:
        share: φ.
        product: GPU product.
    """
    natural = bandwidth(share, product)
    if share == 1:
        return (natural,)
    return natural, *(cap for cap in CAPS if 0.5 * natural <= cap <= 0.95 * natural)
