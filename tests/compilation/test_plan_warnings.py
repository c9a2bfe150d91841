"""The Plan states how uncertain its predictions are, and warns of every measurement that no longer holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tests.conftest import Demo, Scepsy

MEASURE = "(scepsy profile plan lists what to measure)"


@pytest.fixture
def project(tmp_path: Path, demo: Demo) -> Path:
    """The example `beam-search`: its generator's calls have 262 computed and 62 output tokens."""
    return demo(tmp_path / "demo", "beam-search")


def measured(project: Path, **changes: str) -> None:
    """Put a measured profile beside the estimated one of the generator's model, with some text changed."""
    text = (project / "profiles/qwen3-8b-h100.yaml").read_text()
    changes = {"name: qwen3-8b-h100": "name: taken", "source: estimated": "source: measured", **changes}
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    (project / "profiles/taken.yaml").write_text(text)


def compiled(project: Path, scepsy: Scepsy) -> dict:
    ran = scepsy("compile", "--project", project)
    assert ran.code == 0, ran.err
    return YAML(typ="safe", pure=True).load(project / "plans/one-node.yaml")["spec"]


def generator(spec: dict) -> dict:
    return next(llm for llm in spec["llms"] if llm["name"] == "generator")


THESE = {"mix: {input: 512, output: 64, cached: 0}": "mix: {input: 262, output: 62, cached: 0}"}
SURE = {"latency: ": "interval: 0.04, latency: "}


def test_measured_profiles_have_an_uncertainty_and_estimates_have_none(project: Path, scepsy: Scepsy) -> None:
    cluster = project / "clusters/one-node.yaml"
    cluster.write_text(cluster.read_text().replace("sharing: dra-mps", "sharing: dra-exclusive"))
    assert "uncertainty" not in generator(compiled(project, scepsy))["predicted"]
    measured(project, **THESE, **SURE)
    llm = generator(compiled(project, scepsy))
    assert (llm["profile"]["source"], llm["share"]) == ("measured", 1.0)
    assert 0.03 <= llm["predicted"]["uncertainty"] <= 0.2


def test_times_measured_at_another_share_have_no_uncertainty(project: Path, scepsy: Scepsy) -> None:
    measured(project, **THESE, **SURE)
    llm = generator(compiled(project, scepsy))
    assert llm["share"] < 1
    assert llm["profile"]["source"] == "measured"
    assert llm["profile"]["shareModel"] == "sm-roofline-uncalibrated"
    assert "uncertainty" not in llm["predicted"]


def test_a_stale_measurement_is_in_the_warnings_although_an_estimate_replaces_it(project: Path, scepsy: Scepsy) -> None:
    measured(project, **THESE, **{"version: 0.24.0": "version: 0.23.0"})
    spec = compiled(project, scepsy)
    assert generator(spec)["profile"]["name"] == "qwen3-8b-h100"
    reason = "profile taken is stale: measured with vLLM 0.23.0, the engine is 0.24.0"
    assert f"{reason}; it is not used {MEASURE}" in spec["warnings"]


def test_a_stale_measurement_on_another_product_is_not_in_the_warnings(project: Path, scepsy: Scepsy) -> None:
    measured(
        project,
        **THESE,
        **{"version: 0.24.0": "version: 0.23.0", "product: NVIDIA-H100-80GB-HBM3": "product: NVIDIA-H200"},
    )
    assert not any("stale" in warning for warning in compiled(project, scepsy)["warnings"])


def test_a_profile_of_a_product_that_the_cluster_lacks_does_not_make_its_plan_out_of_date(
    project: Path, scepsy: Scepsy
) -> None:
    before = compiled(project, scepsy)
    measured(project, **{"product: NVIDIA-H100-80GB-HBM3": "product: NVIDIA-H200"})
    assert compiled(project, scepsy) == before


def test_a_measurement_of_other_calls_is_stale_and_used_only_if_there_is_no_other(
    project: Path, scepsy: Scepsy
) -> None:
    measured(project)
    spec = compiled(project, scepsy)
    assert generator(spec)["profile"]["name"] == "taken", "no estimate is for these calls either"
    assert (
        "generator for beam-search: profile taken is stale: calls had 512/64 tokens, now 506 (244 cached)/61.8; there is no other, so it is"
        f" used, scaled to these calls {MEASURE}"
    ) in spec["warnings"]


def pinned(project: Path, **revisions: str) -> None:
    """Give every LLM of the workflow the generator's model and a revision of it."""
    path = project / "workflows/beam-search.yaml"
    document = YAML(typ="safe", pure=True).load(path)
    for llm in document["spec"]["llms"]:
        llm.update(model="Qwen/Qwen3-8B", revision=revisions[llm["name"]])
    YAML(typ="safe", pure=True).dump(document, path)


def test_a_measurement_of_another_revision_is_in_the_warnings_if_an_estimate_is_used_instead(
    project: Path, scepsy: Scepsy
) -> None:
    pinned(project, generator="aaa", verifier="bbb")
    measured(project, **{"product: NVIDIA": "revision: aaa\n  product: NVIDIA"})
    warnings = [w for w in compiled(project, scepsy)["warnings"] if "revision aaa, the workflow pins" in w]
    assert warnings == [
        "verifier for beam-search: profile taken is stale: measured with revision aaa, the workflow pins bbb;"
        f" an estimate is used instead {MEASURE}"
    ]


def test_an_llm_without_a_profile_of_its_revision_is_an_error_that_names_the_stale_profile(
    project: Path, scepsy: Scepsy
) -> None:
    pinned(project, generator="aaa", verifier="bbb")
    measured(project, **{"product: NVIDIA": "revision: aaa\n  product: NVIDIA"})
    (project / "profiles/qwen3-8b-h100.yaml").unlink()
    ran = scepsy("compile", "--project", project)
    assert ran.code == 1
    assert "workflows/beam-search.yaml:" in ran.err
    assert "no usable profile of Qwen/Qwen3-8B on a GPU of cluster one-node" in ran.err
    assert "profile taken is stale: measured with revision aaa, the workflow pins bbb; scepsy profile plan" in ran.err


def test_an_estimate_for_these_calls_is_preferred_to_a_measurement_of_others_which_is_in_the_warnings(
    project: Path, scepsy: Scepsy
) -> None:
    measured(project)
    path = project / "profiles/qwen3-8b-h100.yaml"
    path.write_text(path.read_text().replace(*next(iter(THESE.items()))))
    spec = compiled(project, scepsy)
    assert generator(spec)["profile"]["name"] == "qwen3-8b-h100"
    assert (
        "generator for beam-search: profile taken is stale: calls had 512/64 tokens, now 506 (244 cached)/61.8; an estimate is used"
        f" instead {MEASURE}"
    ) in spec["warnings"]


def test_a_shape_on_which_the_engine_did_not_run_is_not_planned_with(project: Path, scepsy: Scepsy) -> None:
    before = generator(compiled(project, scepsy))
    tried = {"tp": before["tp"], "share": before["share"], "reason": "out of memory at start"}
    measured(project, **{"  series:\n": f"  unusable: [{tried}]\n  series:\n"})
    text = (project / "profiles/taken.yaml").read_text()
    (project / "profiles/taken.yaml").write_text(text[: text.index("  series:\n")])
    after = generator(compiled(project, scepsy))
    assert (after["tp"], after["share"]) != (before["tp"], before["share"])
    assert after["profile"]["name"] == "qwen3-8b-h100"
