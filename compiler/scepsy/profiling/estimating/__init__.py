"""Estimated profiles: from a tool's step times to R(k), and to a document that says how it came about.

Nothing here runs on a GPU. `estimator` is what a tool must answer, `aiconfigurator` the one that does; `correction`
adds what its tables leave out, `curves` makes R(k) of the steps, `rendering` the document.
"""

from scepsy.profiling.estimating.aiconfigurator import AiConfigurator
from scepsy.profiling.estimating.curves import Curve, Point, curve, spread
from scepsy.profiling.estimating.estimator import Ask, Estimator, Load, Steps
from scepsy.profiling.estimating.mixes import STANDARD, Kind, Mix, equal_calls, parse_mix, recorded_calls
from scepsy.profiling.estimating.products import PRODUCTS, Product, product_of
from scepsy.profiling.estimating.rendering import HEADER, profile_name, render_profile

__all__ = [
    "HEADER",
    "PRODUCTS",
    "STANDARD",
    "AiConfigurator",
    "Ask",
    "Curve",
    "Estimator",
    "Kind",
    "Load",
    "Mix",
    "Point",
    "Product",
    "Steps",
    "curve",
    "equal_calls",
    "parse_mix",
    "product_of",
    "profile_name",
    "recorded_calls",
    "render_profile",
    "spread",
]
