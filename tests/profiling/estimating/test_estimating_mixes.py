"""Which calls are estimated for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.errors import ScepsyError
from scepsy.profiling.estimating import Kind, equal_calls, parse_mix, recorded_calls


def test_a_mix_is_written_as_prompt_tokens_and_generated_tokens() -> None:
    mix = parse_mix(" 512/64 ")
    assert (mix.input, mix.output, mix.kinds) == (512, 64, (Kind(512, 64, 1.0),))


@pytest.mark.parametrize("text", ["512", "0/64", "512/0", "-1/4", "a/b", "1e3/4", "512/64/3", ""])
def test_anything_else_is_an_error_that_shows_how_to_write_it(text: str) -> None:
    with pytest.raises(ScepsyError, match="not a mix of tokens") as error:
        parse_mix(text)
    assert "512/64" in error.value.hint


def test_equal_calls_are_one_kind_in_whole_tokens_of_at_least_one() -> None:
    assert equal_calls(0.2, 80.55).kinds == (Kind(1, 81, 1.0),)


def test_recorded_calls_of_one_size_are_one_kind() -> None:
    mix = recorded_calls(np.full(100, 300.0), np.full(100, 20.0))
    assert [kind[:2] for kind in mix.kinds] == [(300, 20)]
    assert mix.kinds[0].weight == pytest.approx(1)


def test_short_and_long_calls_are_told_apart() -> None:
    mix = recorded_calls(np.array([100.0] * 8 + [4000.0] * 8), np.array([10.0] * 8 + [800.0] * 8))
    assert {kind[:2] for kind in mix.kinds} == {(100, 10), (4000, 800)}


tokens = st.lists(st.tuples(st.integers(0, 50_000), st.integers(0, 5_000)), min_size=1, max_size=200)


@given(tokens)
def test_the_kinds_have_the_weight_and_nearly_the_means_of_all_calls(pairs: list[tuple[int, int]]) -> None:
    input_, output = np.array(pairs, dtype=float).T
    mix = recorded_calls(input_, output)
    assert 1 <= len(mix.kinds) <= 16
    assert sum(kind.weight for kind in mix.kinds) == pytest.approx(1)
    assert sum(kind.weight * kind.input for kind in mix.kinds) == pytest.approx(input_.mean(), abs=1)
    assert sum(kind.weight * kind.output for kind in mix.kinds) == pytest.approx(output.mean(), abs=1)


@given(tokens, st.randoms(use_true_random=False))
def test_the_order_in_which_calls_were_recorded_does_not_matter(pairs: list[tuple[int, int]], random: object) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (recorded_calls(*np.array(p, dtype=float).T) for p in (pairs, shuffled))
    assert one.kinds == other.kinds
