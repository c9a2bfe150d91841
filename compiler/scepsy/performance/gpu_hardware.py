"""GPU products: hardware numbers from data sheets, and the memory bandwidth that part of the SMs can draw.

One SM draws at most `SM_BANDWIDTH`, since it can have only so many reads in flight (Little's law). So bandwidth rises
with the SMs until the memory is saturated, at the knee φ_s = bandwidth ÷ (SMs · SM_BANDWIDTH); around the knee it
bends, b ∝ x/(1+x³)^⅓ with x = φ/φ_s. Published: a copy kernel saturates an A100 80 GB with 30 of 108 SMs, 68 GB/s each
(Bullet, arXiv 2504.19516, figure 8 and section 3.2.2); one SM of an H100 draws 67 GB/s (a public study, "CUDA
Performance Study, H100 SXM5"); writes saturate an A100 40 GB with about 34 SMs, 45 GB/s each, an H200 with 64, 63 GB/s
each ("Exploring HBM in NVIDIA GPUs", part 2); matrix products of a decode step on an H100 PCIe gain little beyond 40 of
114 SMs, 50 GB/s each (zejia-lin/BulletServe, issue 1). `SM_BANDWIDTH` is the middle of these.
"""

from __future__ import annotations

from dataclasses import dataclass

SM_BANDWIDTH = 60e9
"""Bytes per second that one SM draws at most; published values are 45 to 68e9."""
DEFAULT_KNEE = 0.3
"""Share at which the bandwidth of an unknown GPU is saturated."""


@dataclass(frozen=True, slots=True)
class GpuProduct:
    """Hardware numbers of a GPU product, from NVIDIA's data sheets.

    Attributes:
        bandwidth: of its memory, bytes per second.
        arithmetic: dense 16-bit operations per second.
        sms: streaming multiprocessors.
    """

    bandwidth: float
    arithmetic: float
    sms: int

    def knee(self, each: float) -> float:
        """Return the share of SMs that would saturate the memory if each drew so many bytes per second."""
        return self.bandwidth / self.sms / each


GPU_PRODUCTS = {
    "NVIDIA-A100-SXM4-40GB": GpuProduct(1.555e12, 312e12, 108),
    "NVIDIA-A100-SXM4-80GB": GpuProduct(2.039e12, 312e12, 108),
    "NVIDIA-B200": GpuProduct(8.0e12, 2250e12, 148),
    "NVIDIA-H100-80GB-HBM3": GpuProduct(3.35e12, 989e12, 132),
    "NVIDIA-H200": GpuProduct(4.8e12, 989e12, 132),
    "NVIDIA-L40S": GpuProduct(0.864e12, 362e12, 142),
}


def bandwidth(share: float, product: str | None = None) -> float:
    """Return b(φ), the part of a GPU's memory bandwidth that `share` of its SMs can draw.

    Args:
        share: φ, 0 < φ ≤ 1.
        product: GPU product; for one that is not in `GPU_PRODUCTS`, `DEFAULT_KNEE` is assumed.
    """
    gpu = GPU_PRODUCTS.get(product) if product is not None else None
    return saturating(share, gpu.knee(SM_BANDWIDTH) if gpu else DEFAULT_KNEE)


def saturating(share: float, knee: float) -> float:
    """Return the part of the memory bandwidth that `share` of the SMs can draw, of all that all of them can.

    Args:
        share: φ, 0 < φ ≤ 1.
        knee: share at which the memory would be saturated if the SMs' bandwidths simply added up.
    """
    return _bent(share / knee) / _bent(1 / knee)


def rate(share: float, product: str | None, cap: float = 1.0) -> float:
    """Return the part of a GPU's memory bandwidth at which a share of it reads, limited by a cap.

    Args:
        share: φ, 0 < φ ≤ 1.
        product: GPU product.
        cap: the most that it is to draw.
    """
    return min(bandwidth(share, product), cap)


def _bent(x: float) -> float:
    return float(x / (1 + x**3) ** (1 / 3))
