"""AIConfigurator as an estimator: latencies of single kernels that NVIDIA measured, put together to steps.

`aiconfigurator-core` (Apache-2.0, 600 MB with what it needs, therefore an optional extra) ships tables of kernels
measured on real cards. Its `run_agg` takes a batch of equal calls and a number of prompt tokens per engine step, and
returns the latency of a mixed step and of a decode-only step, and how many there are in the time in which every call is
served once. Traps:

* its own time to the first token grows with the logarithm of the batch, a fit to benchmarks that begin with a burst of
  all calls at once; its request latency ignores Little's law, and its throughput is 0 for calls of one token. So only
  the steps are taken, and `scepsy.profiling.estimating.curves` makes latencies of them;
* it has two memory checks: `check_oom` (the whole card) and `check_kv_cache_oom` (what vLLM may use of it). Both are
  asked, because the second passes after the first has failed;
* a backend object caches results by (input, output, batch, prompt tokens) without the model, so every instance gets its
  own, or a shared one would answer for another model;
* beside n > 1 prompts of calls of one token it counts one phantom decode, about 1 ms;
* a table may inherit rows of another engine or version: `shared_layer=False` asks for the engine's own;
* a model's id may lack what the hub's has: the tables of base models stand for the instructed ones, whose shape is the
  same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata, resources
from typing import Any

from scepsy.documents import Architecture, did_you_mean
from scepsy.errors import ScepsyError
from scepsy.profiling.estimating.estimator import Ask, Load, Steps
from scepsy.profiling.estimating.products import ENGINE, Product

PACKAGE = "aiconfigurator-core"
INSTALL = "install it, 600 MB with what it needs: pip install 'scepsy[estimate]'"
MEMORY_FRACTION = 0.9
"""Part of the card's memory that vLLM may use (its `--gpu-memory-utilization`)."""
_DENSE = ("llama", "qwen3")
_SUFFIX = "_config.json"
_QUANTISED = "_hf_quant_config.json"


class AiConfigurator:
    """The tool, as installed.

    Raises:
        ScepsyError: it is not installed.
    """

    def __init__(self) -> None:
        try:
            self._version = metadata.version(PACKAGE)
        except metadata.PackageNotFoundError as error:
            raise ScepsyError(f"estimates need {PACKAGE}, which is not installed", INSTALL) from error
        # It warns about tables of kernels that none of these models uses.
        logging.getLogger("aiconfigurator_core").setLevel(logging.ERROR)

    @property
    def tool(self) -> str:
        """Its name and version, as profiles record them."""
        return f"{PACKAGE} {self._version}"

    def models(self) -> list[str]:
        """Return the ids of the dense models in BF16 whose config.json it bundles, sorted."""
        return sorted(name for name, config in _bundled().items() if _obstacle(config) is None)

    def architecture(self, model: str) -> Architecture:
        """Return the shape of a model.

        Raises:
            ScepsyError: the tool does not know the model, or its numbers for such models cannot be trusted.
        """
        return architecture_of(_config(model)[1])

    def table(self, product: Product) -> str:
        """Return `system/engine/version`."""
        return f"{product.system}/{ENGINE}/{product.version}"

    def instance(self, model: str, product: Product, tp: int) -> Ask:
        """Bind the tool to one instance, BF16 weights and KV cache throughout.

        Raises:
            ScepsyError: the tool does not know the model, or has no table for the product.
        """
        return connect(_config(model)[0], product, tp)


def connect(bundled: str, product: Product, tp: int, weights: str = "bfloat16", cache: str = "bfloat16") -> Ask:
    """Bind the tool to one instance.

    Args:
        bundled: the model's id in the tool.
        product: the GPU product.
        tp: tensor-parallel degree.
        weights: how weights are stored and multiplied, a name of the tool's `GEMMQuantMode`.
        cache: how the KV cache is stored, a name of the tool's `KVCacheQuantMode`.

    Raises:
        ScepsyError: there is no table for the product.
    """
    # The tool is an optional extra, and takes seconds to import.
    from aiconfigurator_core.sdk import common, config  # noqa: PLC0415
    from aiconfigurator_core.sdk.backends.factory import get_backend  # noqa: PLC0415
    from aiconfigurator_core.sdk.models import get_model  # noqa: PLC0415
    from aiconfigurator_core.sdk.perf_database import get_database_view  # noqa: PLC0415

    database = get_database_view(product.system, ENGINE, product.version, shared_layer=False)
    if database is None or database.version != product.version:
        raise ScepsyError(f"{PACKAGE} has no table {product.system}/{ENGINE}/{product.version}", INSTALL)
    settings = config.ModelConfig(
        tp_size=tp,
        gemm_quant_mode=common.GEMMQuantMode[weights],
        kvcache_quant_mode=common.KVCacheQuantMode[cache],
        fmha_quant_mode=common.FMHAQuantMode.bfloat16,
    )
    built = get_model(bundled, settings, ENGINE)
    backend = get_backend(ENGINE)

    def run(load: Load) -> Steps:
        summary = backend.run_agg(
            built,
            database,
            config.RuntimeConfig(isl=load.input, osl=load.output, batch_size=load.batch),
            ctx_tokens=load.input * load.prompts,
            free_gpu_memory_fraction=MEMORY_FRACTION,
        )
        found = summary.get_per_ops_data()["scheduling"]
        return Steps(
            mixed=found["mix_step_latency_ms"] / 1e3,
            mixed_steps=found["num_mix_steps"],
            decode=found["genonly_step_latency_ms"] / 1e3,
            decode_steps=found["num_genonly_steps"],
            fits=not (summary.check_oom() or summary.check_kv_cache_oom()),
        )

    def ask(load: Load) -> Steps:
        steps = run(load)
        if steps.decode_steps or load.output == 1:
            return steps
        # Prompts join in every step, so it leaves out the decode-only one. With a few more of them at once it does not.
        return replace(steps, decode=run(load._replace(prompts=-(-load.batch // (load.output - 1)))).decode)

    return ask


def _bundled() -> dict[str, dict[str, Any]]:
    """Read every config.json that the tool bundles, by the model's id."""
    files = {file.name: file for file in (resources.files("aiconfigurator_core") / "model_configs").iterdir()}
    # A model with quantised weights says so in its config.json, or in a file beside it.
    stems = [name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX) and not name.endswith(_QUANTISED)]
    return {
        stem.replace("--", "/", 1): json.loads(files[stem + _SUFFIX].read_text("utf-8"))
        | ({"quantization_config": True} if stem + _QUANTISED in files else {})
        for stem in stems
    }


def _config(model: str) -> tuple[str, Mapping[str, Any]]:
    """Return the id under which the tool knows a model, and the model's config.json."""
    bundled = _bundled()
    for name in aliases(model):
        if name in bundled:
            obstacle = _obstacle(bundled[name])
            if obstacle:
                raise ScepsyError(f"{model} cannot be estimated: {obstacle}", "measure it: scepsy profile run")
            return name, bundled[name]
    known = sorted(name for name, config in bundled.items() if _obstacle(config) is None)
    raise ScepsyError(
        f'{PACKAGE} does not know the model "{model}"; of those that can be estimated it knows: {", ".join(known)}',
        did_you_mean(model, known) or "measure it: scepsy profile run",
    )


def aliases(model: str) -> list[str]:
    """Return the ids under which the tool may know a model: its own, and those of its base model."""
    base = model.removesuffix("-Instruct")
    owner, _, name = base.rpartition("/")
    return [model, base, f"{owner}/Meta-{name}"] if owner else [model, base]


def _obstacle(config: Mapping[str, Any]) -> str | None:
    """Say why numbers for a model cannot be trusted; None if they can."""
    if config.get("model_type") not in _DENSE:
        return "only dense models of the shape of Llama and Qwen3 can; errors for others are not known, or large"
    if config.get("quantization_config"):
        return "only BF16 weights can"
    return None


def parameter_count(config: Mapping[str, Any]) -> int:
    """Count the parameters of a dense Llama- or Qwen3-like decoder.

    Per layer: the q, k, v and o projections, three matrices of the gated MLP, two RMS norms, and for Qwen3 one norm
    each over the query and key heads. Around them: the embedding, the output head unless tied to it, and a last norm.

    Args:
        config: the model's config.json.
    """
    hidden, heads, kv_heads = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    head_norms = 2 * head_dim if config["model_type"] == "qwen3" else 0
    layer = attention + head_norms + 3 * hidden * config["intermediate_size"] + 2 * hidden
    embeddings = (1 if config["tie_word_embeddings"] else 2) * config["vocab_size"] * hidden
    return int(config["num_hidden_layers"] * layer + embeddings + hidden)


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """Read an architecture from a model's config.json; BF16 weights and KV cache."""
    heads = config["num_attention_heads"]
    return Architecture(
        parameters=parameter_count(config),
        bytes_per_parameter=2,
        layers=config["num_hidden_layers"],
        attention_heads=heads,
        kv_heads=config["num_key_value_heads"],
        head_dim=config.get("head_dim", config["hidden_size"] // heads),
        context_length=config["max_position_embeddings"],
        kv_bytes_per_element=2,
    )
