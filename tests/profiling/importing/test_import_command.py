"""`scepsy profile import`: results in, one Profile out, or a clear word why not."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Ran, Scepsy
from tests.profiling.importing.bench_results import arriving, closed, result, service, written

from scepsy.documents import Profile, load_file
from scepsy.documents.profile import ProfileSpec

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "vocab_size": 99,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a config.json and results of four runs, which the commands run in."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "config.json", CONFIG)
    for k in (1, 2, 4):
        written(tmp_path / "results" / f"k{k}.json", closed(k, 40 + 10 * k))
    written(tmp_path / "results" / "rate.json", arriving(2.0, 400, 1.2))
    return tmp_path


def given(scepsy: Scepsy, *arguments: object) -> Ran:
    """Run the command with what it always needs."""
    ran = scepsy("profile", "import", *arguments)
    assert "Traceback" not in ran.out + ran.err
    return ran


ALWAYS = ("--model", "org/tiny", "--product", "NVIDIA-L40S", "--engine-version", "0.24.0", "--config", "config.json")


def profile(file: Path) -> ProfileSpec:
    _, loaded, problems = load_file(file, file.name, Profile)
    assert not problems
    assert loaded[0].document.metadata.name == file.stem
    return loaded[0].document.spec


def test_a_directory_becomes_a_profile_that_says_where_it_comes_from(here: Path, scepsy: Scepsy) -> None:
    ran = given(scepsy, "results", *ALWAYS, "--driver", "580.95", "--flag=--max-num-seqs 64", "-o", "tiny.yaml")
    assert ran.code == 0, ran.err
    assert "Wrote " in ran.out
    assert "1 series, 4 points of 4 results" in ran.out
    spec = profile(here / "tiny.yaml")
    assert (spec.source, spec.model, spec.product) == ("imported", "org/tiny", "NVIDIA-L40S")
    assert spec.engine.version == "0.24.0"
    assert spec.architecture.layers == 2
    (series,) = spec.series
    assert [(p.concurrency, round(p.latency, 3)) for p in series.points] == [
        (k, round(service(k), 3)) for k in (1, 2, 4)
    ]
    assert [(p.rate, p.stable) for p in series.open_loop] == [(2.0, True)]
    provenance = spec.provenance
    files = sorted(hashlib.sha256(f.read_bytes()).hexdigest() for f in (here / "results").iterdir())
    digest = hashlib.sha256("".join(f"{one}\n" for one in files).encode()).hexdigest()
    assert provenance.database == f"4 result files, sha256:{digest}"
    assert provenance.tool == "vllm bench serve"
    assert (provenance.date, provenance.driver, provenance.flags) == ("2026-11-20", "580.95", ("--max-num-seqs 64",))
    assert provenance.command == (
        "scepsy profile import results --model org/tiny --product NVIDIA-L40S --engine-version 0.24.0 "
        "--config config.json --driver 580.95 --flag '--max-num-seqs 64'"
    )
    assert str(here) not in (here / "tiny.yaml").read_text()


def test_the_same_results_give_the_same_bytes(here: Path, scepsy: Scepsy) -> None:
    files = [here / "results" / name for name in ("k4.json", "k1.json", "rate.json", "k2.json")]
    assert given(scepsy, *files, *ALWAYS, "-o", "tiny.yaml").code == 0
    first = (here / "tiny.yaml").read_bytes()
    assert given(scepsy, *files, *ALWAYS, "-o", "tiny.yaml", "--force").code == 0
    assert (here / "tiny.yaml").read_bytes() == first


def test_an_existing_file_is_kept_without_force(here: Path, scepsy: Scepsy) -> None:
    (here / "tiny.yaml").write_text("mine")
    ran = given(scepsy, "results", *ALWAYS, "-o", "tiny.yaml")
    assert ran.code == 1
    assert "exists" in ran.err
    assert "--force" in ran.err
    assert (here / "tiny.yaml").read_text() == "mine"


def test_no_result_is_overwritten_even_with_force(here: Path, scepsy: Scepsy) -> None:
    ran = given(scepsy, "results/k1.json", *ALWAYS, "-o", "results/k1.json", "--force")
    assert ran.code == 1
    assert "is an input of this command" in ran.err


def test_what_is_left_out_is_listed_with_its_reason(here: Path, scepsy: Scepsy) -> None:
    written(here / "results" / "failed.json", closed(8, 100, failed=5))
    written(here / "results" / "burst.json", result([0.0] * 30, [1.0] * 30))
    written(here / "results" / "other.json", {"a": 1})
    written(here / "results" / "copy.json", closed(2, 60))
    ran = given(scepsy, "results", *ALWAYS, "-o", "tiny.yaml")
    assert ran.code == 0
    assert "Left out: 2 results, and 2 other files:" in ran.out
    for line in (
        "results/failed.json: 5 of 105 requests failed",
        "results/burst.json: all requests were sent at once",
        "results/k2.json: the same run as results/copy.json",
        "results/other.json: no result of vllm bench serve",
    ):
        assert line in ran.out
    assert [p.concurrency for p in profile(here / "tiny.yaml").series[0].points] == [1, 2, 4]


def test_results_of_open_loop_runs_alone_are_refused_with_the_runs_to_make(here: Path, scepsy: Scepsy) -> None:
    ran = given(scepsy, "results/rate.json", *ALWAYS, "-o", "tiny.yaml")
    assert ran.code == 1
    assert "a Profile needs R(k)" in ran.err
    assert "the number of calls in flight varies" in ran.err
    assert "--random-input-len 512 --random-output-len 33 --ignore-eos --max-concurrency $k" in ran.err
    assert not (here / "tiny.yaml").exists()


def test_nothing_good_is_an_error_with_every_reason(here: Path, scepsy: Scepsy) -> None:
    all_failed = closed(1, 40, completed=0, failed=40)
    ran = given(scepsy, written(here / "failed.json", all_failed), *ALWAYS, "-o", "tiny.yaml")
    assert ran.code == 1
    assert "there is no result that can be imported" in ran.err
    assert "no request was completed; vllm bench serve ends with 0 all the same" in ran.err


def test_an_empty_directory_is_an_error(here: Path, scepsy: Scepsy) -> None:
    (here / "empty").mkdir()
    ran = given(scepsy, "empty", *ALWAYS, "-o", "tiny.yaml")
    assert ran.code == 1
    assert "there is no .json file in the directory" in ran.err


def test_a_single_concurrency_is_imported_with_a_warning_and_the_runs_that_are_missing(
    here: Path, scepsy: Scepsy
) -> None:
    ran = given(scepsy, "results/k4.json", *ALWAYS, "-o", "tiny.yaml")
    assert ran.code == 0
    assert "warning: TP 1, 512/33 tokens: R(k) is known at k = 4 only" in ran.err
    assert "vllm bench serve" in ran.err


def test_the_version_is_taken_from_the_metadata_or_asked_for(here: Path, scepsy: Scepsy) -> None:
    without = [word for word in ALWAYS if word not in ("--engine-version", "0.24.0")]
    ran = given(scepsy, "results", *without, "-o", "tiny.yaml")
    assert ran.code == 1
    assert "do not contain the version of vLLM" in ran.err
    told = written(here / "told.json", closed(1, 40, version="v0.32.0"))
    assert given(scepsy, told, *without, "-o", "tiny.yaml").code == 0
    assert profile(here / "tiny.yaml").engine.version == "0.32.0"
    other = given(scepsy, told, *ALWAYS, "-o", "other.yaml")
    assert other.code == 1
    assert "the results say version=0.32.0, --engine-version says 0.24.0" in other.err


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model_id": "another"}, "2 models"),
        ({"max_num_seqs": 32}, "2 settings of the engine"),
        ({"version": "0.23.0"}, "2 versions of the engine"),
    ],
)
def test_results_of_two_engines_are_not_mixed(here: Path, scepsy: Scepsy, change: dict[str, Any], what: str) -> None:
    written(here / "results" / "k1.json", closed(1, 40, version="0.24.0"))
    written(here / "results" / "k8.json", closed(8, 100) | change)
    ran = given(scepsy, "results", *ALWAYS, "-o", "tiny.yaml")
    assert ran.code == 1
    assert what in ran.err


def test_a_sweeps_degrees_are_series_and_its_parameters_are_flags(here: Path, scepsy: Scepsy) -> None:
    for tp in (1, 2):
        for k in (1, 2):
            folder = f"SERVE--tensor_parallel_size={tp}-max_num_seqs=16-BENCH--max_concurrency={k}"
            sweep = {"tensor_parallel_size": tp, "max_num_seqs": 16, "max_concurrency": k}
            for number in (0, 1):
                document = closed(k, 60, duration=200.0 + number, detailed=False)
                document |= sweep | {"run_number": number}
                document["duration"] = closed(k, 60)["duration"] * (1 + number / 1000)
                document["total_input_tokens"] += tp
                written(here / "sweep" / folder / f"run={number}.json", document)
            written(here / "sweep" / folder / "summary.json", [document, document])
    ran = given(scepsy, "sweep", *ALWAYS, "-o", "tiny.yaml")
    assert ran.code == 0, ran.err
    spec = profile(here / "tiny.yaml")
    assert [(s.tp, [(p.concurrency, p.calls) for p in s.points]) for s in spec.series] == [
        (1, [(1, 120), (2, 120)]),
        (2, [(1, 120), (2, 120)]),
    ]
    assert spec.provenance.flags == ("--max-num-seqs 16",)
    other = given(scepsy, "sweep", *ALWAYS, "--tp", "4", "-o", "other.yaml")
    assert other.code == 1
    assert "its tensor-parallel degree is 1, --tp says 4" in other.err


def test_a_workload_by_rate_gives_r_of_1_and_rates(here: Path, scepsy: Scepsy) -> None:
    levels = {
        1: closed(1, 100, request_rate=1),
        2: arriving(2, 100, 1.2),
        3: arriving(3, 150, 1.4),
        100: arriving(100, 100, 40.0, max_concurrency=100),
    }
    for level, document in levels.items():
        written(here / "sweep" / f"BENCH--seed=1-WL--request_rate={level}" / "run=0.json", document | {"seed": 1})
    ran = given(scepsy, "sweep", *ALWAYS, "-o", "tiny.yaml")
    assert ran.code == 0, ran.err
    (series,) = profile(here / "tiny.yaml").series
    assert [p.concurrency for p in series.points] == [1]
    assert [(p.rate, p.stable) for p in series.open_loop] == [(2.0, True), (3.0, True)]
    # All at once in the end, and nothing after it: too short to tell.
    assert "not known whether the rate was sustained" in ran.out
    assert "R(k) is known at k = 1 only" in ran.err


def test_in_a_project_shape_and_place_come_from_it(here: Path, scepsy: Scepsy) -> None:
    assert scepsy("init", "project", "--example").code == 0
    without = ("--engine-version", "0.24.0", "--product", "NVIDIA-L40S", "--project", "project")
    ran = given(scepsy, "results", "--model", "Qwen/Qwen3-8B", *without)
    assert ran.code == 0, ran.err
    spec = profile(here / "project" / "profiles" / "qwen3-8b-l40s-imported.yaml")
    assert spec.architecture.layers == 36
    unknown = given(scepsy, "results", "--model", "org/tiny", *without)
    assert unknown.code == 1
    assert "the shape of org/tiny is not known" in unknown.err
    assert "--config" in unknown.err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--model", "../../etc", "--model: "),
        ("--product", "H 100", "--product: "),
        ("--engine-version", "latest", "--engine-version: "),
        ("--revision", "a b", "--revision: "),
        ("--share", "0.55", "--share: "),
        ("-o", "no/such/folder.yaml", "there is no directory"),
        ("-o", "results", "is a directory"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(
    here: Path, scepsy: Scepsy, option: str, value: str, message: str
) -> None:
    ran = given(scepsy, "results", *ALWAYS, "-o", "tiny.yaml", option, value)
    assert ran.code == 1
    assert message in ran.err
    assert not (here / "tiny.yaml").exists()


def test_hostile_words_reach_the_document_as_words(here: Path, scepsy: Scepsy) -> None:
    evil = "x\nspec: {source: measured}\x1b[2J"
    folder = here / "evil" / "SERVE--max_num_seqs=1-BENCH-"
    written(folder / "run=0.json", closed(1, 40, model_id=evil, max_num_seqs=evil, date=evil))
    ran = given(scepsy, "evil", *ALWAYS, "-o", "tiny.yaml")
    assert ran.code == 0, ran.err
    assert "\x1b" not in ran.out + ran.err
    spec = profile(here / "tiny.yaml")
    assert spec.source == "imported"
    assert spec.provenance.flags == ("--max-num-seqs x\\nspec: {source: measured}\\x1b[2J",)
    assert spec.provenance.date is None
    assert json.loads((folder / "run=0.json").read_text())["model_id"] == evil


def test_it_needs_neither_the_client_of_the_runner_nor_vllm(here: Path) -> None:
    blocked = "import sys; sys.modules.update(aiohttp=None, vllm=None); from scepsy.cli import main; main()"
    command = [sys.executable, "-c", blocked, "profile", "import", "results", *ALWAYS, "-o", "tiny.yaml"]
    done = subprocess.run(command, cwd=here, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert profile(here / "tiny.yaml").series
