"""What calls make a GPU do, and the least time that takes with part of its SMs: a roofline per step of the engine.

It is not a prediction. It carries figures that are known for some calls and some share of a GPU to others
(`Known.at`): what it explains of a known time changes as it says, the rest (launches, host, all-reduces, which need few
SMs) stays. So its own errors cancel as far as they are the same on both sides.

The time of a step with t tokens, on a share φ of the SMs:

    weights      bytes ÷ (MEMORY · bandwidth · b(φ))
    arithmetic   operations ÷ (ARITHMETIC · peak) · (1/φ + ½ ÷ max(waves, 1.5))
    KV cache     bytes ÷ (KV · bandwidth · b(φ))

An instance that leaves bandwidth to its neighbours is held to a cap: b is then the cap where that is less than b(φ).

Weights and arithmetic overlap in part: the root of the sum of their squares counts. The KV cache is read by other
kernels and adds. A prefill step has the prompt tokens that must be computed; between two decode steps of a call lie as
many prompts of others as end.

**Bandwidth.** One SM draws at most `SM_BANDWIDTH`, since it can have only so many reads under way (Little's law), so
bandwidth rises with the SMs until the memory is saturated, at the knee φ_s = bandwidth ÷ (SMs · SM_BANDWIDTH); around
the knee it bends, b ∝ x/(1+x³)^⅓ with x = φ/φ_s. Published: a copy kernel saturates an A100 80 GB with 30 of 108 SMs,
68 GB/s each (Bullet, arXiv 2504.19516, figure 8 and section 3.2.2); one SM of an H100 draws 67 GB/s (a public study,
"CUDA Performance Study, H100 SXM5"); writes saturate an A100 40 GB with about 34 SMs, 45 GB/s each, an H200 with 64,
63 GB/s each ("Exploring HBM in NVIDIA GPUs", part 2); matrix products of a decode step on an H100 PCIe gain little
beyond 40 of 114 SMs, 50 GB/s each (zejia-lin/BulletServe, issue 1). `SM_BANDWIDTH` is the middle of these.

**Waves.** A kernel whose blocks do not fill the SMs evenly leaves half a wave idle in the mean. Fewer SMs mean more
waves and less loss, so prefill slows by a little less than 1/φ ("near-linearly", Bullet, figure 3). Table 2 of Bullet
puts the loss of Llama 3.1 8B on an A100 at 19, 10, 9 and 0.5 % of the SMs' time for 1024, 2048, 4096 and 16384 tokens;
tables of measured kernels show hardly half of that, and so do we: 11, 6, 3 and 0.7 %. Below 1.5 waves the libraries
choose smaller blocks.

**Efficiencies** are those of whole GPUs in AIConfigurator's tables of measured kernels (A100 and H100, the shipped
profiles of 8 to 70 billion parameters): 0.63 to 0.76 of the bandwidth for weights, 0.7 to 0.8 of the peak for prompts
of 1024 tokens and more.

Nothing here was fitted to a model on a share of a GPU: that is what `uncalibrated` in the name of the share model
says. `python -m benchmarks held_out` prints how far `bandwidth` is from the published figures, and how well `Known.at`
predicts token mixes of the shipped profiles that it has not seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from scepsy.documents import Architecture
from scepsy.documents.profile import FURTHER

if TYPE_CHECKING:
    from scepsy.performance.catalog import Mix

Array = npt.NDArray[np.float64]

MEMORY = 0.7
"""Part of the card's bandwidth at which weights are read."""
KV = 0.6
"""Part of the card's bandwidth at which the KV cache is read."""
ARITHMETIC = 0.8
"""Part of the card's peak arithmetic that a layer reaches, idle SMs at the end of a wave not counted."""
SM_BANDWIDTH = 60e9
"""Bytes per second that one SM draws at most; published figures are 45 to 68e9."""
WAVE = 140_000
"""Prompt tokens × columns of a layer's weights that one SM computes in one wave of all its kernels."""
LEAST_WAVES = 1.5
DEFAULT_KNEE = 0.3
"""Share at which the bandwidth of an unknown card is saturated."""


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU product, from NVIDIA's data sheets.

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


CARDS = {
    "NVIDIA-A100-SXM4-40GB": Card(1.555e12, 312e12, 108),
    "NVIDIA-A100-SXM4-80GB": Card(2.039e12, 312e12, 108),
    "NVIDIA-B200": Card(8.0e12, 2250e12, 148),
    "NVIDIA-H100-80GB-HBM3": Card(3.35e12, 989e12, 132),
    "NVIDIA-H200": Card(4.8e12, 989e12, 132),
    "NVIDIA-L40S": Card(0.864e12, 362e12, 142),
}


def bandwidth(share: float, product: str | None = None) -> float:
    """Return b(φ), the part of a card's memory bandwidth that `share` of its SMs can draw.

    Args:
        share: φ, 0 < φ ≤ 1.
        product: GPU product; of one that is not known a usual knee is assumed.
    """
    card = CARDS.get(product) if product is not None else None
    return saturating(share, card.knee(SM_BANDWIDTH) if card else DEFAULT_KNEE)


def saturating(share: float, knee: float) -> float:
    """Return the part of the memory bandwidth that `share` of the SMs can draw, of all that all of them can.

    Args:
        share: φ, 0 < φ ≤ 1.
        knee: share at which the memory would be saturated if the SMs' bandwidths simply added up.
    """
    return _bent(share / knee) / _bent(1 / knee)


def rate(share: float, product: str | None, cap: float = 1.0) -> float:
    """Return the part of a card's memory bandwidth at which a share of it reads, held to a cap.

    Args:
        share: φ, 0 < φ ≤ 1.
        product: GPU product.
        cap: the most that it is to draw.
    """
    return min(bandwidth(share, product), cap)


def _bent(x: float) -> float:
    return float(x / (1 + x**3) ** (1 / 3))


@dataclass(frozen=True)
class Machine:
    """One instance's model, on whole GPUs or shares of them.

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
        """Whether the card's figures are known."""
        return self.product in CARDS

    @cached_property
    def _card(self) -> Card:
        return CARDS[self.product]

    @cached_property
    def weights(self) -> float:
        """Seconds to read the weights once on a whole GPU."""
        model = self.architecture
        return model.parameters * model.bytes_per_parameter / self.tp / (MEMORY * self._card.bandwidth)

    @cached_property
    def token(self) -> float:
        """Seconds of arithmetic per token on a whole GPU, attention aside."""
        return 2 * self.architecture.parameters / self.tp / (ARITHMETIC * self._card.arithmetic)

    @cached_property
    def _cached_token(self) -> float:
        """Seconds to read one token's part of the KV cache."""
        model = self.architecture
        heads = math.ceil(model.kv_heads / self.tp)
        size = 2 * model.layers * heads * model.head_dim * model.kv_bytes_per_element
        return size / (KV * self._card.bandwidth)

    @cached_property
    def _waves(self) -> float:
        """Waves per token."""
        model = self.architecture
        columns = model.parameters / model.layers / (model.attention_heads * model.head_dim) / self.tp
        return columns / (WAVE * self._card.sms)

    def prompt(self, mix: Mix, share: float) -> float:
        """Return the seconds of arithmetic for one prompt."""
        model = self.architecture
        pairs = mix.computed * (mix.input - mix.computed / 2)
        operations = 4 * model.layers * model.attention_heads * model.head_dim * max(0.0, pairs) / self.tp
        seconds = mix.computed * self.token + operations / (ARITHMETIC * self._card.arithmetic)
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
class Known:
    """Times that are known for some calls on some share of a GPU.

    Attributes:
        prefill: seconds of a call before its first token, while k calls run.
        decode: seconds per further token; zeros where nothing was decoded.
        k: calls that run, rising.
        machine: the instance.
        mix: the calls.
        share: the share of each GPU.
    """

    prefill: Array
    decode: Array
    k: Array
    machine: Machine
    mix: Mix
    share: float

    @cached_property
    def decodes(self) -> bool:
        """Whether anything was decoded."""
        return bool(self.decode.any())

    @cached_property
    def _prompt(self) -> tuple[float, float]:
        """Seconds of a call's prefill that the roofline explains, and those that it does not."""
        explained = self.machine.prefill(self.mix, self.share)
        return explained, max(0.0, float(self.prefill[0]) - explained)

    @cached_property
    def _steps(self) -> tuple[Array, Array]:
        """Per decode step, the time ÷ the roofline as far as it explains it, and the seconds that it does not."""
        explained = self.machine.decode(self.mix, self.share, self.k)
        rest = np.maximum(0.0, self.decode - explained)
        return (self.decode - rest) / explained, rest

    def at(self, mix: Mix, share: float, cap: float = 1.0) -> tuple[Array, Array]:
        """Carry the times over to other calls and another share.

        Of a card that is not known, prefill goes with the prompt tokens that are computed and with 1/φ, a decode step
        with 1/b(φ) or, where more calls run than bandwidth explains, with 1/φ; its steps are those of the known calls.

        Args:
            mix: the calls.
            share: the share of each GPU.
            cap: part of the bandwidth that it draws at most; the known times were taken without a cap.

        Returns:
            prefill and decode.
        """
        capped = cap < bandwidth(share, self.machine.product)
        if share == self.share and mix == self.mix and not capped:
            return self.prefill, self.decode
        if not self.machine.known:
            return self._blindly(mix, share, cap)
        explained, fixed = self._prompt
        prefill = fixed + (self.prefill - fixed) * (self.machine.prefill(mix, share, cap) / explained)
        if mix.output <= 1 < self.mix.output:
            # Nothing but prompts: k calls take at least the arithmetic of k of them.
            part = min(1.0, float(self.prefill[0]) / explained)
            prefill = np.maximum(prefill, self.k * (self.machine.prompt(mix, share) * part))
        if not self.decodes:
            return prefill, self.machine.decode(mix, share, self.k, cap) if mix.output >= FURTHER else self.decode
        part_of, rest = self._steps
        return prefill, rest + part_of * self.machine.decode(mix, share, self.k, cap)

    def _blindly(self, mix: Mix, share: float, cap: float) -> tuple[Array, Array]:
        less = self.share / share
        token = float(self.prefill[0]) / self.mix.computed
        arithmetic = np.minimum(self.decode, self.k * token)
        decode = np.maximum(self.decode * (bandwidth(self.share) / rate(share, None, cap)), arithmetic * less)
        return self.prefill * (mix.computed / self.mix.computed * less), decode
