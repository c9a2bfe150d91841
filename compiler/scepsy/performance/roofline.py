"""The work of calls on a GPU, and the least time that it takes with part of the SMs: a roofline per step of the engine.

It is not a prediction. It carries times that are known for some calls and some share of a GPU over to others
(`KnownTimes.at`): the part of a known time that the roofline explains changes as the roofline does; the rest
(launches, host, all-reduces, which need few SMs) stays. So its errors cancel as far as both sides have them.

The time of a step with t tokens, on a share φ of the SMs:

    weights      bytes ÷ (MEMORY · bandwidth · b(φ))
    arithmetic   operations ÷ (ARITHMETIC · peak) · (1/φ + ½ ÷ max(waves, 1.5))
    KV cache     bytes ÷ (KV · bandwidth · b(φ))

An instance that leaves bandwidth to its neighbours has a cap: b is then the cap if that is less than b(φ).

`gpu_hardware.py` has the bandwidth, the peak and b(φ). Weights and arithmetic overlap in part: the root of the sum of
their squares counts. Other kernels read the KV cache, so its time adds. A prefill step computes the prompt tokens that
are not cached; between two decode steps of a call there are as many prompts of others as calls that end.

**Waves.** A kernel whose blocks do not fill the SMs evenly leaves half a wave idle in the mean. Fewer SMs mean more
waves and less loss, so prefill slows by a little less than 1/φ ("near-linearly", Bullet, figure 3). Table 2 of Bullet
puts the loss of Llama 3.1 8B on an A100 at 19, 10, 9 and 0.5 % of the SMs' time for 1024, 2048, 4096 and 16384 tokens;
tables of measured kernels show hardly half of that, which is used here: 11, 6, 3 and 0.7 %. Below 1.5 waves the
libraries choose smaller blocks.

**Efficiencies** are those of whole GPUs in AIConfigurator's tables of measured kernels (A100 and H100, the shipped
profiles of 8 to 70 billion parameters): 0.63 to 0.76 of the bandwidth for weights, 0.7 to 0.8 of the peak for prompts
of 1024 tokens and more.

Nothing here was fitted to a model on a share of a GPU: hence `uncalibrated` in the name of the share model.
 `python -m benchmarks held_out` prints how far `bandwidth` is from the published values, and how well `KnownTimes.at`
predicts token mixes of the shipped profiles that it has not seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scepsy.documents import Architecture
from scepsy.documents.profile import FURTHER
from scepsy.performance.curves import Array
from scepsy.performance.gpu_hardware import GPU_PRODUCTS, GpuProduct, bandwidth, rate
from scepsy.performance.mix import Mix

MEMORY = 0.7
"""Part of the GPU's bandwidth at which weights are read."""
KV = 0.6
"""Part of the GPU's bandwidth at which the KV cache is read."""
ARITHMETIC = 0.8
"""Part of the GPU's peak arithmetic that a layer reaches, idle SMs at the end of a wave not counted."""
WAVE = 140_000
"""Prompt tokens × columns of a layer's weights that one SM computes in one wave of all its kernels."""
LEAST_WAVES = 1.5


@dataclass(frozen=True)
class Roofline:
    """One model on one GPU product at one tensor-parallel degree, on whole GPUs or shares of them.

    Attributes:
        architecture: the model.
        product: GPU product.
        tp: tensor-parallel degree.
    """

    architecture: Architecture
    product: str
    tp: int

    @property
    def known(self) -> bool:
        """Whether the GPU product is known."""
        return self.product in GPU_PRODUCTS

    @cached_property
    def _gpu(self) -> GpuProduct:
        return GPU_PRODUCTS[self.product]

    @cached_property
    def weights(self) -> float:
        """Seconds to read the weights once on a whole GPU."""
        model = self.architecture
        return model.parameters * model.bytes_per_parameter / self.tp / (MEMORY * self._gpu.bandwidth)

    @cached_property
    def token(self) -> float:
        """Seconds of arithmetic per token on a whole GPU, attention aside."""
        return 2 * self.architecture.parameters / self.tp / (ARITHMETIC * self._gpu.arithmetic)

    @cached_property
    def _cached_token(self) -> float:
        """Seconds to read one token's part of the KV cache."""
        model = self.architecture
        heads = math.ceil(model.kv_heads / self.tp)
        size = 2 * model.layers * heads * model.head_dim * model.kv_bytes_per_element
        return size / (KV * self._gpu.bandwidth)

    @cached_property
    def _waves(self) -> float:
        """Waves per token."""
        model = self.architecture
        columns = model.parameters / model.layers / (model.attention_heads * model.head_dim) / self.tp
        return columns / (WAVE * self._gpu.sms)

    def prompt(self, mix: Mix, share: float) -> float:
        """Return the seconds of arithmetic for one prompt."""
        model = self.architecture
        pairs = mix.computed * (mix.input - mix.computed / 2)
        operations = 4 * model.layers * model.attention_heads * model.head_dim * max(0.0, pairs) / self.tp
        seconds = mix.computed * self.token + operations / (ARITHMETIC * self._gpu.arithmetic)
        return seconds * (1 / share + 0.5 / max(self._waves * mix.computed, LEAST_WAVES))

    def prefill(self, mix: Mix, share: float, cap: float = 1.0) -> float:
        """Return the least seconds of a step that computes one prompt."""
        return math.hypot(self.weights / rate(share, self.product, cap), self.prompt(mix, share))

    def read(self, mix: Mix, k: Array) -> Array:
        """Return the seconds that a whole GPU reads, at full bandwidth, in the time of a call while k calls run.

        The weights are read once per step, and a step has the prompts of others too (one at most, where calls are so
        short that there are more prompts than steps).

        Args:
            mix: the calls.
            k: calls that run.
        """
        steps = max(0.0, mix.output - 1)
        cache = self._cached_token * (mix.input + mix.output / 2)
        return np.asarray(self.weights * np.maximum(1 + steps, k) + steps * k * cache)

    def decode(self, mix: Mix, share: float, k: Array, cap: float = 1.0) -> Array:
        """Return the least seconds per further token while k calls run, the prompts of calls that follow included.

        Args:
            mix: the calls.
            share: φ.
            k: calls that run.
            cap: part of the bandwidth that it draws at most.
        """
        b = rate(share, self.product, cap)
        waves = np.maximum(self._waves * k, LEAST_WAVES)
        cache = self._cached_token * (mix.input + mix.output / 2) / b
        prompts = self.prompt(mix, share) / max(1.0, mix.output)
        arithmetic = k * (self.token * (1 / share + 0.5 / waves))
        return np.asarray(np.hypot(self.weights / b, arithmetic) + k * (cache + prompts) - prompts)


@dataclass(frozen=True)
class KnownTimes:
    """Profiled times of some calls on some share of a GPU.

    Attributes:
        prefill: seconds of a call before its first token, while k calls run.
        decode: seconds per further token; zeros where nothing was decoded.
        k: calls that run, rising.
        roofline: of the instance.
        mix: the calls.
        share: the share of each GPU.
    """

    prefill: Array
    decode: Array
    k: Array
    roofline: Roofline
    mix: Mix
    share: float

    @cached_property
    def decodes(self) -> bool:
        """Whether anything was decoded."""
        return bool(self.decode.any())

    @cached_property
    def _prompt(self) -> tuple[float, float]:
        """Seconds of a call's prefill that the roofline explains, and those that it does not."""
        explained = self.roofline.prefill(self.mix, self.share)
        return explained, max(0.0, float(self.prefill[0]) - explained)

    @cached_property
    def _steps(self) -> tuple[Array, Array]:
        """Per decode step, the time ÷ the roofline as far as it explains it, and the seconds that it does not."""
        explained = self.roofline.decode(self.mix, self.share, self.k)
        rest = np.maximum(0.0, self.decode - explained)
        return (self.decode - rest) / explained, rest

    def at(self, mix: Mix, share: float, cap: float = 1.0) -> tuple[Array, Array]:
        """Carry the times over to other calls and another share.

        For an unknown GPU product, prefill scales with the prompt tokens to compute and with 1/φ, a decode step with
        1/b(φ) or, where more calls run than bandwidth explains, with 1/φ; decode steps do not depend on the calls.

        Args:
            mix: the calls.
            share: the share of each GPU.
            cap: part of the bandwidth that it draws at most; the known times were taken without a cap.

        Returns:
            prefill and decode.
        """
        capped = cap < bandwidth(share, self.roofline.product)
        if share == self.share and mix == self.mix and not capped:
            return self.prefill, self.decode
        if not self.roofline.known:
            return self._without_hardware_numbers(mix, share, cap)
        explained, fixed = self._prompt
        prefill = fixed + (self.prefill - fixed) * (self.roofline.prefill(mix, share, cap) / explained)
        if mix.output <= 1 < self.mix.output:
            # Nothing but prompts: k calls take at least the arithmetic of k of them.
            part = min(1.0, float(self.prefill[0]) / explained)
            prefill = np.maximum(prefill, self.k * (self.roofline.prompt(mix, share) * part))
        if not self.decodes:
            return prefill, self.roofline.decode(mix, share, self.k, cap) if mix.output >= FURTHER else self.decode
        part_of, rest = self._steps
        return prefill, rest + part_of * self.roofline.decode(mix, share, self.k, cap)

    def _without_hardware_numbers(self, mix: Mix, share: float, cap: float) -> tuple[Array, Array]:
        less = self.share / share
        token = float(self.prefill[0]) / self.mix.computed
        arithmetic = np.minimum(self.decode, self.k * token)
        decode = np.maximum(self.decode * (bandwidth(self.share) / rate(share, None, cap)), arithmetic * less)
        return self.prefill * (mix.computed / self.mix.computed * less), decode
