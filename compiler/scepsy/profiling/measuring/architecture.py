"""A model's shape from its config.json, as Hugging Face writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scepsy.documents.profile import Architecture
from scepsy.errors import ScepsyError

_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
_DENSE = {"llama", "mistral", "qwen2", "qwen3"}
"""Model types whose parameters `dense_parameters` counts exactly."""
_MOST = 1 << 50
"""More than any number of a model's shape."""


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.json; of a model with several modalities the part that is the language model.

    Raises:
        ScepsyError: the file is not there, or is none.
    """
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise ScepsyError(f"--config: cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ScepsyError(f"--config: {path} is not JSON: {error}") from error
    except RecursionError as error:
        raise ScepsyError(f"--config: {path} is nested too deeply to be a model's config.json") from error
    if not isinstance(config, dict):
        raise ScepsyError(f"--config: {path} is not a model's config.json")
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config


def vocabulary_of(config: Mapping[str, Any]) -> int:
    """Return how many token ids a model has.

    Raises:
        ScepsyError: its config.json does not say.
    """
    return _whole(config, "vocab_size")


def architecture_of(config: Mapping[str, Any], parameters: int | None, flags: Sequence[str] = ()) -> Architecture:
    """Return the shape that memory depends on.

    Args:
        config: the config.json.
        parameters: their number, where it is known; else it is counted, for dense models like Llama.
        flags: the engine's flags: `--kv-cache-dtype fp8` halves the KV cache.

    Raises:
        ScepsyError: the config lacks something, or parameters cannot be counted.
    """
    heads = _whole(config, "num_attention_heads")
    element = _element(config)
    kv_cache = " ".join(flags).replace("=", " ").partition("--kv-cache-dtype")[2].split()[:1]
    try:
        return Architecture(
            parameters=parameters or dense_parameters(config),
            bytes_per_parameter=bytes_per_weight(config),
            layers=_whole(config, "num_hidden_layers"),
            attention_heads=heads,
            kv_heads=_kv_heads(config, heads),
            head_dim=_head(config, heads),
            context_length=_whole(config, "max_position_embeddings"),
            kv_bytes_per_element=1.0 if kv_cache and kv_cache[0].startswith("fp8") else element,
        )
    except ValidationError as error:
        raise ScepsyError(f"--config: {error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from error


def bytes_per_weight(config: Mapping[str, Any]) -> float:
    """Return the bytes of one weight: what `quantization_config` says, else those of one element.

    Raises:
        ScepsyError: the config does not say.
    """
    quantized = config.get("quantization_config")
    if not isinstance(quantized, Mapping):
        return _element(config)
    bits = 8 if quantized.get("quant_method") == "fp8" else quantized.get("bits")
    if not isinstance(bits, int) or bits not in (4, 8):
        raise ScepsyError(
            f"--config: how many bits has a weight with {quantized.get('quant_method')!r}? it is not stated"
        )
    return bits / 8


def is_countable(config: Mapping[str, Any]) -> bool:
    """Tell whether `dense_parameters` can count a model's parameters."""
    return config.get("model_type") in _DENSE


def dense_parameters(config: Mapping[str, Any]) -> int:
    """Count the parameters of a dense decoder like Llama, Mistral, Qwen2 or Qwen3.

    Per layer the projections q, k, v and o, three matrices of the gated MLP and two RMS norms; Qwen2 adds biases to q,
    k and v, Qwen3 a norm each over query and key heads. Around them the embedding, the output head unless tied to it,
    and a last norm.

    Raises:
        ScepsyError: the model is of another kind.
    """
    kind = config.get("model_type")
    if not is_countable(config):
        raise ScepsyError(f'the parameters of a model of the type "{kind}" cannot be counted', "give --parameters")
    hidden, heads = _whole(config, "hidden_size"), _whole(config, "num_attention_heads")
    kv_heads, head = _kv_heads(config, heads), _head(config, heads)
    attention = hidden * head * (2 * heads + 2 * kv_heads)
    attention += {"qwen2": head * (heads + 2 * kv_heads), "qwen3": 2 * head}.get(str(kind), 0)
    layer = attention + 3 * hidden * _whole(config, "intermediate_size") + 2 * hidden
    embeddings = (1 if config.get("tie_word_embeddings") else 2) * _whole(config, "vocab_size") * hidden
    return _whole(config, "num_hidden_layers") * layer + embeddings + hidden


def _head(config: Mapping[str, Any], heads: int) -> int:
    return _whole(config, "head_dim") if config.get("head_dim") else _whole(config, "hidden_size") // heads


def _kv_heads(config: Mapping[str, Any], heads: int) -> int:
    return _whole(config, "num_key_value_heads") if config.get("num_key_value_heads") else heads


def _element(config: Mapping[str, Any]) -> float:
    element = _BYTES.get(str(config.get("torch_dtype") or config.get("dtype")))
    if element is None:
        raise ScepsyError(
            f'--config: torch_dtype is "{config.get("torch_dtype")}", one of {", ".join(_BYTES)} is known'
        )
    return element


def _whole(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 <= value <= _MOST:
        what = "is missing" if value is None else "is not a number such as a model has"
        raise ScepsyError(f'--config: "{key}" {what}', "is it the config.json of the model?")
    return int(value)
