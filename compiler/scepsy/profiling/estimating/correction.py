"""What the tables of kernels leave out of a step, and what is known of it.

Three constants with a physical meaning, fitted to measured points of vLLM:

* `kernels`: the GPU's part of a step takes longer than the sum of its kernels, because of launch gaps and of kernels
  that no table holds;
* `call`: the server works on the host for every running call in every step (scheduling, sampling, turning tokens into
  text, sending them), and the GPU waits for part of that;
* `layer`: before a call's first token the host launches the kernels of every layer one by one; the delay occupies the
  call, not the GPU.

The points are those of `silicon_sample.csv` in aiconfigurator-core 0.12.0: 339 of dense models on vLLM, 315 of which
are used. `python -m benchmarks estimates` (with the extra `estimate` installed) fits the constants again, prints how
far the result errs on models, systems and groups that the fit did not see, and says which points are left out and why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from scepsy.profiling.estimating.estimator import Load, Steps


@dataclass(frozen=True, slots=True)
class Correction:
    """The constants.

    Attributes:
        kernels: time of the GPU in a step ÷ sum of its kernels.
        call: seconds per running call and step.
        layer: seconds per layer before the first token.
    """

    kernels: float
    call: float
    layer: float


@dataclass(frozen=True, slots=True)
class Errors:
    """Mean absolute relative errors.

    Attributes:
        latency: of the latency of a call.
        ttft: of the time to the first token.
        tpot: of the time per further token.
    """

    latency: float
    ttft: float
    tpot: float


FITTED = Correction(kernels=1.057, call=30.4e-6, layer=0.60e-3)
"""Fitted to all 315 points; `benchmarks/estimates.py` says how."""
POINTS = 315
"""How many points that are."""
LEFT_OUT = 24
"""Points of dense models that are not used: their sources contradict the hardware."""
CROSS_VALIDATED = Errors(latency=0.084, ttft=0.258, tpot=0.085)
"""Errors on systems that the fit did not see, the largest of those by model, by system and by both."""
UNCORRECTED = Errors(latency=0.101, ttft=0.361, tpot=0.102)
"""Errors of the tool by itself on the same points."""


def corrected(load: Load, steps: Steps, correction: Correction = FITTED) -> Steps:
    """Return what the steps take on a server."""
    host = correction.call * load.batch
    return replace(
        steps,
        mixed=correction.kernels * steps.mixed + host,
        decode=correction.kernels * steps.decode + host if load.output > 1 else 0.0,
    )
