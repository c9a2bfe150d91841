"""The calls to estimate for: a pair of token counts, or a few pairs that stand for recorded calls."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scepsy.errors import ScepsyError
from scepsy.traces.trace import Floats

_WRITTEN = re.compile(r"([0-9]{1,7})/([0-9]{1,7})")
_HALVES = 4
"""Recorded calls are split into so many parts by output, and each of these into so many by input."""


class Kind(NamedTuple):
    """Calls of one size.

    Attributes:
        input: prompt tokens.
        output: generated tokens, at least one.
        weight: part of the calls that are of this size.
    """

    input: int
    output: int
    weight: float


@dataclass(frozen=True)
class Mix:
    """The calls that run while R(k) is taken.

    Attributes:
        input: mean prompt tokens.
        output: mean generated tokens.
        kinds: the sizes of calls; their weights sum to 1.
    """

    input: float
    output: float
    kinds: tuple[Kind, ...]

    @property
    def mean(self) -> Mix:
        """The same mix with all calls of the mean size, in whole tokens."""
        return equal_calls(self.input, self.output)


def equal_calls(input: float, output: float) -> Mix:  # noqa: A002 - what documents call it
    """Return a mix of equal calls; tools take whole tokens, so the means are rounded for them, at least to 1."""
    return Mix(input, output, (Kind(max(1, round(input)), max(1, round(output)), 1.0),))


STANDARD = tuple(equal_calls(*pair) for pair in ((256, 8), (512, 1), (512, 64), (1024, 256), (3072, 256)))
"""What is estimated unless something else is asked for: judging, reranking, short and long answers."""


def parse_mix(text: str) -> Mix:
    """Read `512/64`: prompt tokens and generated tokens.

    Raises:
        ScepsyError: it is not such a pair.
    """
    match = _WRITTEN.fullmatch(text.strip())
    if match is None or not int(match[1]) or not int(match[2]):
        raise ScepsyError(
            f'--mix "{text[:40]}" is not a mix of tokens', "write prompt tokens/generated tokens, such as 512/64"
        )
    return equal_calls(int(match[1]), int(match[2]))


def recorded_calls(input: Floats, output: Floats) -> Mix:  # noqa: A002 - what documents call it
    """Return the mix of recorded calls, as a few pairs that stand for them.

    The calls are sorted by output and cut into four parts of equal number, each of these is sorted by input and cut
    again. A part stands for its calls by their mean size, so the means over all calls stay (up to whole tokens).

    Args:
        input: (N,) prompt tokens, N ≥ 1.
        output: (N,) generated tokens.
    """
    count = len(input)
    kinds: dict[tuple[int, int], float] = {}
    for half in _parts(np.lexsort((input, output))):
        for part in _parts(half[np.argsort(input[half], kind="stable")]):
            size = max(1, round(float(input[part].mean()))), max(1, round(float(output[part].mean())))
            kinds[size] = kinds.get(size, 0.0) + len(part) / count
    pairs = tuple(Kind(*size, weight) for size, weight in sorted(kinds.items()))
    return Mix(float(input.mean()), max(1.0, float(output.mean())), pairs)


def _parts(order: np.typing.NDArray[np.int64]) -> list[np.typing.NDArray[np.int64]]:
    return [part for part in np.array_split(order, _HALVES) if len(part)]
