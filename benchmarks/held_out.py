"""Errors of held-out latencies: points, token mixes, shares; and of the bandwidth that part of the SMs draws.

Points and mixes are those of the shipped profiles (estimated by AIConfigurator from measured kernels), so the errors
are those of the curve and of the scaling alone, not of the estimates. Shares of a simulated engine check the
interpolation, not the GPU. The bandwidths are published measurements of kernels. There are no measurements of models
on shares of a GPU here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from benchmarks.search import load
from scepsy.documents import Profile, Series
from scepsy.performance import Catalog, Mix
from scepsy.performance.curves import UNKNOWN_INTERVAL, Array, curve, pooled
from scepsy.performance.gpu_hardware import GPU_PRODUCTS, SM_BANDWIDTH, GpuProduct, saturating
from scepsy.performance.roofline import Roofline

Interpolation = Callable[[Array, Array, float], float]

H100 = GPU_PRODUCTS["NVIDIA-H100-80GB-HBM3"]


@dataclass(frozen=True)
class Source:
    """Published measurements of the bandwidth that part of a GPU's SMs draws, cited in `performance/gpu_hardware.py`.

    Attributes:
        name: which.
        each: bytes per second that one SM draws, as it says or as follows from where the memory is saturated.
        points: card, share of the SMs, part of the bandwidth of all SMs.
    """

    name: str
    each: float
    points: tuple[tuple[GpuProduct, float, float], ...]


SOURCES = (
    Source("Bullet, A100 80 GB, copy", 68e9, ((GPU_PRODUCTS["NVIDIA-A100-SXM4-80GB"], 30 / 108, 1.0),)),
    Source(
        "a blog, A100 40 GB and H200 at 4.0 TB/s, write",
        (45.7e9 * 63e9) ** 0.5,
        ((GPU_PRODUCTS["NVIDIA-A100-SXM4-40GB"], 34 / 108, 1.0), (GpuProduct(4.0e12, 989e12, 132), 64 / 132, 1.0)),
    ),
    Source("BulletServe issue 1, H100 PCIe, matrix product", 50e9, ((GpuProduct(2.0e12, 756e12, 114), 40 / 114, 0.9),)),
    Source(
        "a study, H100 SXM5, copy",
        66.7e9,
        ((H100, 8 / 132, 0.181), (H100, 32 / 132, 0.592), (H100, 64 / 132, 0.861)),
    ),
)


def summary(errors: list[float]) -> str:
    e = np.abs(errors)
    within = (e <= 0.1).mean()
    return (
        f"mean {e.mean():6.1%}  median {np.median(e):6.1%}  95 % below {np.quantile(e, 0.95):6.1%}"
        f"  within 10 %: {within:4.0%}  ({len(e)})"
    )


def profiles() -> list[Profile]:
    folder = files("scepsy.examples") / "profiles"
    return [load(f"profiles/{p.name}", Profile) for p in sorted(folder.iterdir(), key=lambda p: p.name)]


def cubic(ks: Array, values: Array, at: float) -> float:
    """Monotone cubic (Fritsch and Carlson), the ends as in PCHIP."""
    h, d = np.diff(ks), np.diff(values) / np.diff(ks)
    slopes = np.zeros(len(ks))
    for i in range(1, len(ks) - 1):
        if d[i - 1] * d[i] > 0:
            a, b = 2 * h[i] + h[i - 1], h[i] + 2 * h[i - 1]
            slopes[i] = (a + b) / (a / d[i - 1] + b / d[i])
    slopes[0], slopes[-1] = d[0], d[-1]
    i = int(np.clip(np.searchsorted(ks, at, side="right") - 1, 0, len(h) - 1))
    t = (at - ks[i]) / h[i]
    low = (1 + 2 * t) * (1 - t) ** 2 * values[i] + t * (1 - t) ** 2 * h[i] * slopes[i]
    return float(low + t * t * (3 - 2 * t) * values[i + 1] + t * t * (t - 1) * h[i] * slopes[i + 1])


def ours(ks: Array, values: Array, at: float) -> float:
    fit = pooled(values, np.full(len(ks), UNKNOWN_INTERVAL))
    return float(curve(ks, fit, int(ks[-1]))[int(at) - 1])


INTERPOLATIONS: dict[str, Interpolation] = {
    "linear in k (used)": ours,
    "linear in log k": lambda k, v, at: float(np.interp(np.log(at), np.log(k), v)),
    "log R linear in log k": lambda k, v, at: float(np.exp(np.interp(np.log(at), np.log(k), np.log(v)))),
    "monotone cubic in k": cubic,
    "monotone cubic in √k": lambda k, v, at: cubic(np.sqrt(k), v, float(np.sqrt(at))),
    "monotone cubic in log k": lambda k, v, at: cubic(np.log(k), v, float(np.log(at))),
}


def points(interpolation: Interpolation, all_series: list[Series], below: float) -> list[float]:
    """Leave every inner point out whose throughput is at most `below` of the series' best."""
    errors = []
    for series in all_series:
        ks = np.array([p.concurrency for p in series.points], dtype=float)
        values = np.array([p.latency for p in series.points])
        rate = ks / values
        for i in range(1, len(ks) - 1):
            if rate[i] <= below * rate.max():
                rest = np.arange(len(ks)) != i
                errors.append(interpolation(ks[rest], values[rest], ks[i]) / values[i] - 1)
    return errors


def mixes(factor: float, *, known: bool) -> Iterator[float]:
    """Leave every mix out of its shape, and predict it from the others; `known` is whether the card may be known."""
    for profile in profiles():
        spec = profile.spec
        version = spec.engine.version
        for tp in sorted({s.tp for s in spec.series}):
            own = [s for s in spec.series if s.tp == tp]
            for series in own:
                rest = tuple(s for s in own if s is not series)
                product = spec.product if known else "unknown"
                changed = spec.model_copy(update={"series": rest, "product": product})
                catalog = Catalog([profile.model_copy(update={"spec": changed})], version)
                mix = Mix(series.mix.input, series.mix.output, series.mix.cached)
                times = catalog.service(spec.model, product, tp, 10, mix)
                if times.rescaled > factor:
                    continue
                for point in series.points:
                    if point.concurrency <= len(times.seconds):
                        yield float(times.seconds[point.concurrency - 1] / point.latency - 1)


def simulated(share: float, factor: float) -> Profile:
    """Return what would be measured of a model of 8 billion parameters, 1000 tokens in and 101 out, on a share."""
    template = next(p for p in profiles() if p.metadata.name == "llama-3.1-8b-instruct-a100")
    machine, mix = Roofline(template.spec.architecture, template.spec.product, 1), Mix(1000, 101, 0)
    slower = factor ** -float(np.log2(share))
    ks = np.array([1.0, 4, 16, 64])
    first = (machine.prefill(mix, share)) * slower + 0.01
    decode = machine.decode(mix, share, ks) * slower + 0.002
    points = [
        {"concurrency": int(k), "latency": f"{first + 100 * d}s", "ttft": f"{first}s", "tpot": f"{d}s"}
        for k, d in zip(ks.tolist(), decode.tolist(), strict=True)
    ]
    series = {"tp": 1, "share": share, "mix": {"input": 1000, "output": 101}, "points": points}
    spec = template.spec.model_copy(update={"series": (Series.model_validate(series),), "source": "measured"})
    return template.model_copy(update={"spec": spec})


def shares(factor: float, known: tuple[int, ...]) -> Iterator[float]:
    """Predict the shares that are not known from those that are."""
    taken = [simulated(tenths / 10, factor) for tenths in known]
    spec = taken[0].spec
    catalog = Catalog(taken, spec.engine.version)
    for tenths in (3, 4, 6, 7, 8, 9):
        found = catalog.service(spec.model, spec.product, 1, tenths, Mix(1000, 101, 0)).seconds
        for point in simulated(tenths / 10, factor).spec.series[0].points:
            yield float(found[point.concurrency - 1] / point.latency - 1)


def main() -> None:
    """Print the errors."""
    every = [s for p in profiles() for s in p.spec.series]
    print("Points held out of the shipped profiles (gaps of a factor of four), by interpolation:")
    for name, interpolation in INTERPOLATIONS.items():
        print(f"  {name:26s} {summary(points(interpolation, every, 1.0))}")
    print(f"  {'the same below 80 % load':26s} {summary(points(ours, every, 0.8))}")
    print("Mixes held out of the shipped profiles, by the largest factor between token means:")
    for factor in (4.5, 1e9):
        name = f"up to {factor:g}" if factor < 1e9 else "all"
        print(f"  {name:12s} roofline (used) {summary(list(mixes(factor, known=True)))}")
        print(f"  {'':12s} proportional    {summary(list(mixes(factor, known=False)))}")
    print("Shares of a simulated A100 that slows with every halving by a factor more than the model, held out:")
    for factor in (0.9, 1.0, 1.15, 1.3):
        for name, known in (("from the whole GPU", (10,)), ("between measured shares 0.2, 0.5 and 1", (10, 5, 2))):
            print(f"  {factor:4.2f} {name:40s} {summary(list(shares(factor, known)))}")
    print("Bandwidth that part of the SMs draws, each source left out of the mean of the others:")
    errors = []
    for source in SOURCES:
        each = float(np.exp(np.mean([np.log(other.each) for other in SOURCES if other is not source])))
        for card, share, found in source.points:
            predicted = saturating(share, card.knee(each))
            errors.append(predicted / found - 1)
            error = predicted / found - 1
            print(f"  {source.name:48s} φ {share:.2f}: published {found:.2f}, predicted {predicted:.2f} ({error:+.0%})")
    print(f"  {summary(errors)}; used: {SM_BANDWIDTH / 1e9:.0f} GB/s per SM")
