"""Units are part of a value, and what is written can be read again."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from scepsy.documents.units import (
    Duration,
    format_duration,
    format_memory,
    format_rate,
    option_duration,
    parse_duration,
    parse_memory,
    parse_rate,
    parse_share,
    significant,
)
from scepsy.errors import ScepsyError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("80ms", 0.08),
        ("8s", 8.0),
        ("2min", 120.0),
        ("2m", 120.0),
        ("1.5 h", 5400.0),
        ("250us", 0.00025),
        ("7d", 604_800.0),
        ("2w", 1_209_600.0),
    ],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "rate"), [("4/s", 4.0), ("30/min", 0.5), ("90 / h", 0.025)])
def test_rates_are_events_per_second(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize(("text", "size"), [("80Gi", 80 * 2**30), ("80G", 80 * 10**9), ("1.5Ki", 1536), (512, 512)])
def test_memory_is_bytes(text: object, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["8", "8 seconds", "-1s", "s", "1e3s", "８s", "", None, True, 8, 1.5, "8s\n8s"])
def test_a_duration_without_its_unit_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


@given(st.integers(min_value=0, max_value=999), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
def test_a_duration_is_its_number_times_its_unit_in_documents_and_options(count: int, unit: str, blank: str) -> None:
    text = f"{count}{blank}{unit}"
    assert parse_duration(text) == pytest.approx(count * UNITS[unit])
    assert option_duration(text, "--timeout") == parse_duration(text)
    assert re.fullmatch(TypeAdapter(Duration).json_schema()["pattern"], text)


@given(st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,2})?\s?[a-z]{1,3}", fullmatch=True))
def test_the_schema_accepts_what_the_parser_accepts(text: str) -> None:
    try:
        parse_duration(text)
    except ValueError:
        accepted = False
    else:
        accepted = True
    assert accepted == bool(re.fullmatch(TypeAdapter(Duration).json_schema()["pattern"], text))


def test_a_wrong_duration_of_an_option_names_the_option() -> None:
    with pytest.raises(ScepsyError) as raised:
        option_duration("soon", "--timeout")
    assert raised.value.message == (
        '--timeout: "soon" is not a duration: write a number and a unit, such as 80ms, 8s, 2min or 7d'
    )


def test_a_duration_has_a_limit_that_a_caller_may_lift() -> None:
    with pytest.raises(ValueError, match="must be shorter than thirty years"):
        parse_duration("2000w")
    assert parse_duration("2000w", longest=math.inf) == 2000 * 604_800
    with pytest.raises(ValueError, match="must be shorter than thirty years"):
        parse_duration("9" * 400 + "w", longest=math.inf)


@pytest.mark.parametrize("value", [0, 0.05, 0.25, 1.1, "0.5", True, math.nan])
def test_shares_are_tenths(value: object) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        parse_share(value)


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_a_written_duration_reads_back_within_four_digits(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-3)


@given(st.floats(min_value=1e-5, max_value=1e6))
def test_a_written_rate_reads_back_within_four_digits(rate: float) -> None:
    assert parse_rate(format_rate(rate)) == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize("text", ["4/s", "100/h", "7/h", "13/min", "33.3333/s", "0.001/h", "6/min"])
def test_a_rate_that_people_wrote_is_written_back_exactly(text: str) -> None:
    assert parse_rate(format_rate(parse_rate(text))) == parse_rate(text)


@pytest.mark.parametrize("text", ["80ms", "123.456s", "2min", "8s", "1.5h", "250us", "0.3ms", "0s"])
def test_a_duration_that_people_wrote_is_written_back_exactly(text: str) -> None:
    assert parse_duration(format_duration(parse_duration(text))) == parse_duration(text)


@given(st.integers(min_value=1, max_value=2**50))
def test_written_memory_reads_back_exactly(size: int) -> None:
    assert parse_memory(format_memory(size)) == size


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_four_significant_digits_are_never_in_exponent_form(value: float) -> None:
    text = significant(value)
    assert "e" not in text
    assert float(text) == pytest.approx(value, rel=1e-3)
