"""A model's shape from its config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scepsy.documents import Profile, load_file
from scepsy.errors import ScepsyError
from scepsy.profiling.measuring import architecture_of, read_config, vocabulary_of

PROFILES = Path(__file__).parents[3] / "examples" / "profiles"
QWEN3_8B: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def test_the_shape_is_that_of_the_example_profile() -> None:
    _, loaded, _ = load_file(PROFILES / "qwen3-8b-h100.yaml", "qwen3-8b-h100.yaml", Profile)
    assert architecture_of(QWEN3_8B, None) == loaded[0].document.spec.architecture


def test_newer_configs_and_parts_of_larger_models_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vl", "text_config": {"vocab_size": 7}, "dtype": "float16"}')
    config = read_config(tmp_path / "config.json")
    assert (vocabulary_of(config), config["dtype"]) == (7, "float16")


@pytest.mark.parametrize(
    ("quantized", "size"),
    [({"quant_method": "fp8"}, 1.0), ({"quant_method": "awq", "bits": 4}, 0.5), (None, 2.0)],
)
def test_weights_are_as_small_as_their_quantization(quantized: Any, size: float) -> None:
    assert architecture_of({**QWEN3_8B, "quantization_config": quantized}, None).bytes_per_parameter == size


@pytest.mark.parametrize("flags", [("--kv-cache-dtype", "fp8_e4m3"), ("--kv-cache-dtype=fp8",)])
def test_the_engine_s_flags_say_how_large_the_kv_cache_is(flags: tuple[str, ...]) -> None:
    assert architecture_of(QWEN3_8B, None, flags).kv_bytes_per_element == 1.0
    assert architecture_of(QWEN3_8B, None).kv_bytes_per_element == 2.0


def test_parameters_that_cannot_be_counted_must_be_given() -> None:
    experts = {**QWEN3_8B, "model_type": "qwen3_moe"}
    assert architecture_of(experts, 30_532_122_624).parameters == 30_532_122_624
    with pytest.raises(ScepsyError, match="cannot be counted") as error:
        architecture_of(experts, None)
    assert error.value.hint == "give --parameters"


@pytest.mark.parametrize("text", ["[" * 300_000, '{"a":' * 300_000], ids=["lists", "objects"])
def test_a_config_that_is_nested_too_deeply_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(
        ScepsyError, match=r"--config: .*config\.json is nested too deeply to be a model's config\.json"
    ):
        read_config(tmp_path / "config.json")


@pytest.mark.parametrize("key", ["num_key_value_heads", "head_dim", "vocab_size", "num_hidden_layers"])
@pytest.mark.parametrize("odd", ["x", [1], -1, float("nan"), float("inf"), 10**400], ids=lambda odd: str(odd)[:9])
def test_what_is_no_number_of_a_model_is_named(key: str, odd: Any) -> None:
    with pytest.raises(ScepsyError, match=f'"{key}" is not a number such as a model has'):
        architecture_of({**QWEN3_8B, key: odd}, None)


@pytest.mark.parametrize("missing", ["num_hidden_layers", "max_position_embeddings", "torch_dtype", "hidden_size"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(ScepsyError, match=missing):
        architecture_of({key: value for key, value in QWEN3_8B.items() if key != missing}, None)
