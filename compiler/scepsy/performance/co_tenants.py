"""The memory bandwidth that instances on one GPU leave to each other (section 2.6 of the model).

Co-tenants share one memory bandwidth. The service times of an instance hold if it can read at the rate c that they
assume: b(φ) without neighbours, or one of the `caps` below it, at which its steps take longer. Averaged over time it
reads m, which its load decides and the cap hardly changes (m ≤ c · the part of the time in which it is busy). Placement
lets instances share a GPU only if for each of them

    c_i + Σ_{j≠i} m_j ≤ 1,   that is   Σ_j m_j + max_i (c_i − m_i) ≤ 1 :

what the others leave on average is at least what it assumes. That is a mean field, right to first order for tenants
that are busy at independent times: for two that decode on half a GPU each, it predicts the latency within 5 %; without
it, the prediction is 31 % too fast at averages of 0.4 (a simulation, `tests/pipeline/test_instances.py`).

All bandwidths here are parts of what a whole GPU reads at in the engine's kernels (`roofline.MEMORY` of the data
sheet's), so that two instances capped to one half each read together as fast as one with the whole GPU. Kernels of two
engines, side by side, may reach more of the data sheet's bandwidth than those of one; that is not counted on.
"""

from __future__ import annotations

from scepsy.performance.gpu_hardware import bandwidth

CAPS = (0.8, 0.65, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Parts of the GPU's memory bandwidth to which an instance may be capped so that others can use the rest; closer where
two instances that are busy half of the time would meet."""


def caps(share: float, product: str) -> tuple[float, ...]:
    """Return the parts of the bandwidth that an instance may be planned with: b(φ), and some less.

    Caps close to b(φ) would free too little; below half of it, a smaller share does as well.

    Args:
        share: φ.
        product: GPU product.
    """
    natural = bandwidth(share, product)
    if share == 1:
        return (natural,)
    return natural, *(cap for cap in CAPS if 0.5 * natural <= cap <= 0.95 * natural)
