"""`scepsy profile estimate`, with a tool of a few numbers in place of the real one."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from tests.conftest import Scepsy

from scepsy.documents import Architecture, Profile, load_file
from scepsy.errors import ScepsyError
from scepsy.performance import Catalog, Mix
from scepsy.profiling.estimating import PRODUCTS, Ask, Load, Product, Steps, product_of, profile_name
from scepsy.profiling.estimating.aiconfigurator import aliases, architecture_of

H100 = "NVIDIA-H100-80GB-HBM3"
QWEN = "Qwen/Qwen3-8B"


class Tool:
    """Knows two models; a step takes 10 ms and 0.1 ms per token, on many GPUs less."""

    tool = "test-tool 1.0"

    def models(self) -> list[str]:
        return [QWEN, "Qwen/Qwen3-0.6B"]

    def architecture(self, model: str) -> Architecture:
        if model not in self.models():
            raise ScepsyError(f'the tool does not know "{model}"')
        return Architecture(
            parameters=8_190_735_360,
            bytes_per_parameter=2,
            layers=36,
            attention_heads=12,
            kv_heads=4,
            head_dim=128,
            context_length=40960,
        )

    def table(self, product: Product) -> str:
        return f"{product.system}/vllm/{product.version}"

    def instance(self, model: str, product: Product, tp: int) -> Ask:
        def ask(load: Load) -> Steps:
            mixed = (0.010 + 1e-4 * (load.input * load.prompts + load.batch)) / tp
            steps = -(-load.batch // load.prompts)
            decode = (0.010 + 1e-4 * load.batch) / tp if load.output > 1 else 0.0
            return Steps(mixed, steps, decode, max(0, load.output - steps), load.batch <= 64)

        return ask


@pytest.fixture
def estimate(scepsy: Scepsy, monkeypatch: pytest.MonkeyPatch) -> Scepsy:
    monkeypatch.setattr("scepsy.cli.profile.estimate.AiConfigurator", Tool)
    return lambda *arguments: scepsy("profile", "estimate", *arguments)


def read(path: Path) -> Profile:
    _, documents, problems = load_file(path, path.name, Profile)
    assert not problems
    return documents[0].document


def test_it_writes_one_profile_per_model_and_product(estimate: Scepsy, tmp_path: Path) -> None:
    ran = estimate(QWEN, "Qwen/Qwen3-0.6B", "--product", H100, "--product", "NVIDIA-H200", "-o", tmp_path)
    assert (ran.code, ran.err) == (0, "")
    names = ["qwen3-0.6b-h100.yaml", "qwen3-0.6b-h200.yaml", "qwen3-8b-h100.yaml", "qwen3-8b-h200.yaml"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert f"Wrote {tmp_path}/qwen3-8b-h100.yaml: 15 series (TP 1, 2, 4), 111 points" in ran.out
    assert "measure what you rely on" in ran.out


def test_the_profile_says_where_its_figures_come_from_and_how_far_to_trust_them(
    estimate: Scepsy, tmp_path: Path
) -> None:
    estimate(QWEN, "--product", H100, "--tp", "1,2", "--mix", "512/64", "--mix", "100/1", "-o", tmp_path)
    spec = read(tmp_path / "qwen3-8b-h100.yaml").spec
    assert (spec.source, spec.model, spec.product, spec.engine.version) == ("estimated", QWEN, H100, "0.24.0")
    assert (spec.provenance.tool, spec.provenance.database) == ("test-tool 1.0", "h100_sxm/vllm/0.24.0")
    command = f"scepsy profile estimate {QWEN} --product {H100} --tp 1,2 --mix 512/64 --mix 100/1"
    assert spec.provenance.command == command
    assert "mean error is at most 8.4% end to end" in (spec.provenance.notes or "")
    assert [(s.tp, s.mix.input, s.mix.output) for s in spec.series] == [
        (1, 512, 64),
        (1, 100, 1),
        (2, 512, 64),
        (2, 100, 1),
    ]
    assert spec.series[1].points[0].tpot is None


def test_the_catalog_takes_the_curve_as_it_was_estimated(estimate: Scepsy, tmp_path: Path) -> None:
    estimate(QWEN, "--product", H100, "--mix", "512/64", "-o", tmp_path)
    profile = read(tmp_path / "qwen3-8b-h100.yaml")
    found = Catalog([profile], "0.24.0").service(QWEN, H100, 1, 10, Mix(512, 64, 0))
    for point in profile.spec.series[0].points:
        assert found.seconds[point.concurrency - 1] == pytest.approx(point.latency, rel=1e-3)


def test_the_command_in_a_profile_gives_the_same_bytes_again(estimate: Scepsy, tmp_path: Path) -> None:
    estimate(QWEN, "--product", H100, "--mix", "512/64", "-o", tmp_path)
    path = tmp_path / "qwen3-8b-h100.yaml"
    before = path.read_bytes()
    words = (read(path).spec.provenance.command or "").split()
    assert words[:3] == ["scepsy", "profile", "estimate"]
    assert estimate(*words[3:], "-o", tmp_path).code == 0
    assert path.read_bytes() == before


def trace_of(path: Path, llm: str = "writer") -> Path:
    lines = [
        f'{{"execution":"e{i}","model":"{llm}","start":{i},"end":{i + 1},"inputTokens":{size},"outputTokens":{size // 10}}}'
        for i, size in enumerate([100] * 8 + [3000] * 8)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_recorded_calls_are_estimated_for_in_their_sizes_not_their_mean(estimate: Scepsy, tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "calls.jsonl")
    ran = estimate(QWEN, "--product", H100, "--trace", trace, "--llm", "writer", "-o", tmp_path)
    assert "the sizes of the recorded calls change latencies by" in ran.out
    spec = read(tmp_path / "qwen3-8b-h100-writer.yaml").spec
    assert {(s.mix.input, s.mix.output) for s in spec.series} == {(1550, 155)}
    assert (
        spec.provenance.command == f"scepsy profile estimate {QWEN} --product {H100} --trace calls.jsonl --llm writer"
    )
    assert (spec.provenance.trace_digest or "").startswith("sha256:")
    assert "calls of 2 sizes" in (spec.provenance.notes or "")


def test_a_strange_name_in_a_trace_stays_in_its_place(estimate: Scepsy, tmp_path: Path) -> None:
    llm = "a: b # c"
    trace = trace_of(tmp_path / "calls.jsonl", llm)
    assert estimate(QWEN, "--product", H100, "--trace", trace, "--llm", llm, "-o", tmp_path).code == 0
    spec = read(tmp_path / "qwen3-8b-h100-a-b-c.yaml").spec
    assert (spec.provenance.command or "").endswith("--llm 'a: b # c'")


PROJECT = """\
apiVersion: scepsy.dev/v1alpha1
kind: Project
metadata: {name: demo}
"""
WORKFLOW = """\
apiVersion: scepsy.dev/v1alpha1
kind: Workflow
metadata: {name: support}
spec:
  target: {rate: 1/s}
  llms:
    - {name: writer, model: Qwen/Qwen3-8B}
    - {name: judge, model: Qwen/Qwen3-0.6B}
    - {name: reader, model: Qwen/Qwen3-8B}
  demand: {DEMAND}
"""
STATISTICS = """{statistics: {llms: [
    {llm: writer, calls: 1, inputTokens: {mean: 900.5}, outputTokens: {mean: 200}},
    {llm: judge, calls: 2, inputTokens: {mean: 400}, outputTokens: {mean: 1}},
    {llm: reader, calls: 1, inputTokens: {mean: 3000}, outputTokens: {mean: 20}}]}}"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("workflows", "clusters", "profiles", "traces"):
        (tmp_path / name).mkdir()
    (tmp_path / "scepsy.yaml").write_text(PROJECT)
    (tmp_path / "workflows" / "support.yaml").write_text(WORKFLOW.replace("{DEMAND}", STATISTICS))
    return tmp_path


def test_a_workflow_names_its_models_and_its_calls(estimate: Scepsy, project: Path) -> None:
    ran = estimate("--workflow", "support", "--product", H100, "--tp", "1", "--project", project)
    assert (ran.code, ran.err) == (0, "")
    profiles = {path.stem: read(path).spec for path in (project / "profiles").iterdir()}
    assert {name: [(s.mix.input, s.mix.output) for s in spec.series] for name, spec in profiles.items()} == {
        "qwen3-0.6b-h100-support": [(400, 1)],
        "qwen3-8b-h100-support": [(900.5, 200), (3000, 20)],
    }
    command = f"scepsy profile estimate {QWEN} --product {H100} --tp 1 --workflow support"
    assert profiles["qwen3-8b-h100-support"].provenance.command == command


def test_of_a_workflow_with_a_trace_the_recorded_calls_are_taken(estimate: Scepsy, project: Path) -> None:
    document = WORKFLOW.replace("{DEMAND}", "{traces: ../traces/support.jsonl}")
    (project / "workflows" / "support.yaml").write_text(
        "".join(line for line in document.splitlines(keepends=True) if "judge" not in line and "reader" not in line)
    )
    trace_of(project / "traces" / "support.jsonl")
    estimate("--workflow", "support", "--product", H100, "--tp", "1", "--project", project)
    spec = read(project / "profiles" / "qwen3-8b-h100-support.yaml").spec
    assert [(s.mix.input, s.mix.output) for s in spec.series] == [(1550, 155)]
    assert "calls of 2 sizes" in (spec.provenance.notes or "")
    assert spec.provenance.trace_digest


def test_a_workflow_that_is_not_there_is_compared_with_those_that_are(estimate: Scepsy, project: Path) -> None:
    ran = estimate("--workflow", "suport", "--product", H100, "--project", project)
    assert 'there is no workflow "suport"' in ran.err
    assert 'did you mean "support"?' in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((QWEN, "--product", "H100"), 'no estimates for the product "H100"; there are for: NVIDIA-A100-SXM4-80GB'),
        ((QWEN, "--product", H100, "--tp", "3"), '--tp "3" is not a list of 1, 2, 4 and 8'),
        ((QWEN, "--product", H100, "--mix", "lots"), '--mix "lots" is not a mix of tokens'),
        (
            (QWEN, "--product", H100, "--mix", "1/2", "--workflow", "w"),
            "--mix and --workflow both select the calls to estimate for",
        ),
        ((QWEN, "--product", H100, "--llm", "writer"), "--trace and --llm belong together"),
        (("--product", H100), "no model is named"),
        (("Qwen/Qwen9", "--product", H100), 'the tool does not know "Qwen/Qwen9"'),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    estimate: Scepsy, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    ran = estimate(*arguments, "-o", tmp_path / "profiles")
    assert ran.code == 1
    assert message in ran.err
    assert not (tmp_path / "profiles").exists()


def test_without_a_project_it_asks_where_to_write(estimate: Scepsy, tmp_path: Path) -> None:
    ran = estimate(QWEN, "--product", H100, "--project", tmp_path)
    assert ran.code == 1
    assert "-o" in ran.err


def test_it_does_not_write_over_a_measurement(estimate: Scepsy, tmp_path: Path) -> None:
    path = tmp_path / "qwen3-8b-h100.yaml"
    path.write_text("kind: Profile\n")
    ran = estimate(QWEN, "Qwen/Qwen3-0.6B", "--product", H100, "-o", tmp_path)
    assert ran.code == 1
    assert "it may hold measurements" in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["qwen3-8b-h100.yaml"]
    assert path.read_text() == "kind: Profile\n"


def test_without_the_extra_it_says_how_to_install_it(
    scepsy: Scepsy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("scepsy.profiling.estimating.aiconfigurator.metadata.version", missing)
    ran = scepsy("profile", "estimate", QWEN, "--product", H100, "-o", tmp_path)
    assert ran.code == 1
    assert "pip install 'scepsy[estimate]'" in ran.err


def test_products_have_unique_names_in_files_and_labels() -> None:
    assert len({p.slug for p in PRODUCTS}) == len({p.name for p in PRODUCTS}) == len(PRODUCTS)


def test_a_profile_is_named_after_model_product_and_purpose() -> None:
    product = product_of(H100)
    assert profile_name("meta-llama/Llama-3.1-8B-Instruct", product) == "llama-3.1-8b-instruct-h100"
    assert profile_name("Qwen/Qwen3-0.6B", product, "Émile's LLM…") == "qwen3-0.6b-h100-mile-s-llm"


def test_a_model_is_looked_for_under_the_names_of_its_base_model_too() -> None:
    found = aliases("meta-llama/Llama-3.1-8B-Instruct")
    assert found == [
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.1-8B",
        "meta-llama/Meta-Llama-3.1-8B",
    ]


def test_parameters_are_counted_from_the_config() -> None:
    config = {
        "model_type": "qwen3",
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 12288,
        "tie_word_embeddings": False,
        "vocab_size": 151936,
        "num_hidden_layers": 36,
        "max_position_embeddings": 40960,
    }
    found = architecture_of(config)
    assert found.parameters == 8_190_735_360  # what the weights of Qwen/Qwen3-8B hold
    assert (found.layers, found.attention_heads, found.kv_heads, found.head_dim) == (36, 32, 8, 128)
