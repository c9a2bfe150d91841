"""What is written means the same to readers of YAML 1.1 and 1.2, byte for byte the same every time."""

from __future__ import annotations

import io

import pytest
import yaml as yaml11
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from scepsy.documents import emit
from scepsy.documents.yaml_source import SourceFile, parse

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"]))
scalars |= st.floats(allow_nan=False, allow_infinity=False, width=32)
scalars |= st.sampled_from(
    ["on", "No", "y", "1e3", "0o7", "1_0", "12:30:00", "~", "null", "-", "a: b", "a #b", "<<", "="]
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=20
)  # fmt: skip


def read_1_1(data: bytes) -> object:
    return yaml11.safe_load(data)


def read_1_2(data: bytes) -> object:
    return YAML(typ="safe", pure=True).load(io.BytesIO(data))


@given(values)
def test_readers_of_both_versions_see_what_was_meant(value: object) -> None:
    data = emit(value)
    assert read_1_1(data) == value
    assert read_1_2(data) == value


@given(st.dictionaries(st.sampled_from(["a", "b", "on"]), values, min_size=1))
def test_our_own_reader_sees_it_too(value: object) -> None:
    assert parse(SourceFile("x", emit(value)))[0].root.plain() == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": {"b": [1, {"c": 2, "d": []}], "e": {}}}, "a:\n  b:\n    - 1\n    - c: 2\n      d: []\n  e: {}\n"),
        ({"kind": "Deployment", "on": "off", "v": "1.36"}, 'kind: Deployment\n"on": "off"\nv: "1.36"\n'),
        ({"cfg": "global\n  maxconn 1\n\nend\n"}, "cfg: |\n  global\n    maxconn 1\n\n  end\n"),
        ({"image": "vllm/vllm-openai:v1@sha256:ab"}, "image: vllm/vllm-openai:v1@sha256:ab\n"),
        ({"s": 'x"}]}\n---\nkind: Secret'}, 's: "x\\"}]}\\n---\\nkind: Secret"\n'),
        ([[1, 2], [3]], "- - 1\n  - 2\n- - 3\n"),
    ],
)
def test_the_form_is_canonical(value: object, text: str) -> None:
    assert emit(value).decode() == text
