"""`scepsy drift` as its users meet it, with a Prometheus in memory; test_drift_real.py has a real one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from tests import published_schemas as published
from tests.conftest import Demo, Ran, Scepsy, git
from tests.drift.prometheus_server import Answer, Fake, answering, success
from tests.drift.replayed_traffic import DAY, Engine, constant, gateway

from scepsy.documents.units import parse_duration

SECRET = "s3cret-token-of-the-platform-team"
STEADY = constant(1.0)


@pytest.fixture
def project(tmp_path: Path, demo: Demo) -> Path:
    """The example, compiled and committed two days ago."""
    return demo(tmp_path / "demo", compiled=True, days=2)


@dataclass
class Planned:
    """What the plan of the example expects, per LLM."""

    load: dict[str, float]
    tokens: dict[str, tuple[float, float]]
    seconds: dict[str, float]
    instances: dict[str, list[str]]


@pytest.fixture
def planned(project: Path) -> Planned:
    yaml = YAML(typ="safe", pure=True)
    spec = yaml.load(project / "plans" / "one-node.yaml")["spec"]
    workflow = yaml.load(project / "workflows" / "rag-reranker.yaml")
    demand = {entry["llm"]: entry for entry in workflow["spec"]["demand"]["statistics"]["llms"]}

    def mean(value: object) -> float:
        return float(value["mean"] if isinstance(value, dict) else value)  # type: ignore[arg-type]

    return Planned(
        {llm["name"]: float(llm["predicted"]["load"].partition("/")[0]) for llm in spec["llms"]},
        {name: (mean(own["inputTokens"]), mean(own["outputTokens"])) for name, own in demand.items()},
        {own["llm"]: parse_duration(own["call"]) for own in spec["workflows"][0]["predicted"]["llms"]},
        {llm["name"]: [i["name"] for i in spec["instances"] if i["llm"] == llm["name"]] for llm in spec["llms"]},
    )


def traffic(planned: Planned, llm: str, shape: np.ndarray = STEADY, **more: object) -> list[dict[str, list[str]]]:
    """The engines of one LLM, at so many times its planned load; calls like planned, and not slow."""
    own = planned.instances[llm]
    tokens = planned.tokens[llm]
    given = {"input": tokens[0], "output": tokens[1], "seconds": 0.8 * planned.seconds[llm], **more}
    rng = np.random.default_rng(3)
    parts = []
    for name in own:
        rate = planned.load[llm] * shape / len(own)
        parts.append(Engine(llm, f"{name}-6c5d8f9b7-x2x4q", rate, **given).lines(NOW, rng))  # type: ignore[arg-type]
    return parts


NOW = float(int(time.time()))


@pytest.fixture
def fake() -> Iterator[Fake]:
    with answering(Fake(now=NOW)) as own:
        yield own


def serve(fake: Fake, planned: Planned, **shapes: np.ndarray) -> None:
    """Give every LLM its traffic; as planned where nothing else is said."""
    rng = np.random.default_rng(4)
    for llm in planned.load:
        shape = shapes.get(llm, STEADY)
        for part in traffic(planned, llm, shape):
            fake.add(part)
        fake.add(gateway(llm, planned.load[llm] * shape, NOW, rng))


def drift(scepsy: Scepsy, project: Path, fake: Fake, *more: object) -> Ran:
    return scepsy("drift", "--project", project, "--prometheus", fake.url, *more)


def result(ran: Ran) -> dict:
    document = json.loads(ran.out)
    published.validate(document, "DriftResult")
    return document


def kinds(document: dict) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in document.get("findings", []):
        found.setdefault(finding["subject"], []).append(finding["kind"])
    return found


def risen(factor: float, minutes: int) -> np.ndarray:
    shape = constant(1.0)
    shape[-minutes:] = factor
    return shape


def test_traffic_as_planned_is_no_drift_and_what_was_judged_is_said(
    scepsy: Scepsy, project: Path, planned: Planned, fake: Fake
) -> None:
    serve(fake, planned)
    ran = drift(scepsy, project, fake)
    assert (ran.code, ran.err) == (0, "")
    assert "No drift" in ran.out
    assert f"planned {planned.load['generator']:g}/s" in ran.out
    assert "calls per execution are not known for " in ran.out
    assert "cluster" not in kinds(result(drift(scepsy, project, fake, "--output", "json")))


def test_more_than_planned_is_found_with_since_when_and_what_it_costs(
    scepsy: Scepsy, project: Path, planned: Planned, fake: Fake
) -> None:
    serve(fake, planned, generator=risen(1.6, 40), reranker=risen(1.6, 40))
    ran = drift(scepsy, project, fake, "--output", "json")
    assert ran.code == 2
    document = result(ran)
    assert document["drift"] is True
    assert kinds(document) == {"generator": ["load-above"], "reranker": ["load-above"]}
    found = next(f for f in document["findings"] if f["subject"] == "generator")
    assert found["instances"] == planned.instances["generator"]
    assert found["confidence"] >= 0.999
    since = time.mktime(time.strptime(found["since"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert since == pytest.approx(NOW - 40 * 60, abs=300)
    now, again = found["cost"]["workflows"][0], found["gain"]["workflows"][0]
    assert now["workflow"] == again["workflow"] == "rag-reranker"
    assert [now["rate"], again["rate"]] == pytest.approx([1.6 * 12, 1.6 * 12], rel=0.05)
    assert again["latency"] <= now["latency"] * 1.02
    text = drift(scepsy, project, fake).out
    for words in ("instead of the planned", "since about", "confidence ", "Compiled again on"):
        assert words in text


def test_load_that_saturates_the_allocation_is_critical(
    scepsy: Scepsy, project: Path, planned: Planned, fake: Fake
) -> None:
    serve(fake, planned, generator=risen(4, 60), reranker=risen(4, 60))
    document = result(drift(scepsy, project, fake, "--output", "json"))
    assert {f["severity"] for f in document["findings"] if f["area"] == "traffic"} == {"critical"}
    assert "latency" not in document["findings"][0]["cost"]["workflows"][0]
    assert "grows without bound" in drift(scepsy, project, fake).out


def test_calls_that_wait_at_the_gateway_count_though_full_engines_do_not_see_them(
    scepsy: Scepsy, project: Path, planned: Planned, fake: Fake
) -> None:
    serve(fake, planned)
    fake.series["haproxy_backend_http_requests_total"] = []
    rng = np.random.default_rng(4)
    fake.add(gateway("generator", planned.load["generator"] * risen(1.5, 60), NOW, rng))
    document = result(drift(scepsy, project, fake, "--output", "json"))
    assert kinds(document) == {"generator": ["load-above"]}
    unknown = {(j["subject"], j["what"]): j["reason"] for j in document["checks"] if not j["checked"]}
    assert "the gateway is not scraped" in unknown["reranker", "load at the gateway"]


def test_less_than_planned_is_found_over_a_day_and_says_how_few_gpus_would_do(
    scepsy: Scepsy, project: Path, planned: Planned, fake: Fake
) -> None:
    serve(fake, planned, generator=constant(0.5), reranker=constant(0.5))
    document = result(drift(scepsy, project, fake, "--output", "json"))
    assert kinds(document) == {"generator": ["load-below"], "reranker": ["load-below"]}
    assert {f["severity"] for f in document["findings"]} == {"info"}
    assert "the observed load fits on" in document["findings"][0]["gain"]["note"]
    assert drift(scepsy, project, fake, "--low-load-after", "never").code == 0


def test_an_instance_that_is_not_scraped_is_not_taken_for_a_lack(
    scepsy: Scepsy, project: Path, planned: Planned, fake: Fake
) -> None:
    for part in traffic(planned, "reranker"):
        fake.add(part)
    for part in traffic(planned, "generator", constant(0.5))[:1]:
        fake.add(part)
    document = result(drift(scepsy, project, fake, "--output", "json"))
    assert "generator" not in kinds(document)
    if len(planned.instances["generator"]) > 1:
        reasons = [j["reason"] for j in document["checks"] if j["subject"] == "generator" and not j["checked"]]
        assert f"1 of {len(planned.instances['generator'])} instances are scraped" in reasons


def test_longer_prompts_are_found(scepsy: Scepsy, project: Path, planned: Planned, fake: Fake) -> None:
    serve(fake, planned)
    fake.series["vllm:request_prompt_tokens_sum"] = []
    for llm in planned.load:
        factor = np.where(np.arange(DAY // 60) >= DAY // 60 - 60, 1.3, 1.0) if llm == "generator" else 1.0
        for part in traffic(planned, llm, input=planned.tokens[llm][0] * factor):
            fake.add({"vllm:request_prompt_tokens_sum": part["vllm:request_prompt_tokens_sum"]})
    document = result(drift(scepsy, project, fake, "--output", "json"))
    assert kinds(document) == {"generator": ["input-tokens-above"]}
    assert "(+30%)" in document["findings"][0]["what"]


def test_calls_that_take_longer_than_predicted_at_their_load_are_found(
    scepsy: Scepsy, project: Path, planned: Planned, fake: Fake
) -> None:
    serve(fake, planned)
    fake.series["vllm:e2e_request_latency_seconds_sum"] = []
    for part in traffic(planned, "generator", seconds=30.0):
        fake.add({"vllm:e2e_request_latency_seconds_sum": part["vllm:e2e_request_latency_seconds_sum"]})
    document = result(drift(scepsy, project, fake, "--output", "json"))
    assert kinds(document) == {"generator": ["latency-above"]}
    finding = document["findings"][0]
    assert finding["area"] == "profiles"
    assert "scepsy profile plan" in finding["what"]
    assert finding["gain"]["note"].startswith("measure again first")


def test_a_project_whose_engine_and_profiles_moved_on_is_found_without_any_prometheus(
    scepsy: Scepsy, project: Path
) -> None:
    settings = project / "scepsy.yaml"
    settings.write_text(settings.read_text().replace("v0.24.0", "v0.25.0").replace("0.24.0", "0.25.0"))
    git(project, "commit", "-qam", "Newer engine")
    ran = scepsy("drift", "--project", project, "--output", "json")
    found = {f["kind"]: f for f in result(ran)["findings"]}
    assert ran.code == 2
    assert "v0.25.0" in found["engine-changed"]["what"]
    assert "scepsy profile plan" in found["profile-outdated"]["what"]


def test_old_profiles_are_found_where_that_is_asked_for(scepsy: Scepsy, project: Path) -> None:
    ran = scepsy("drift", "--project", project, "--profiles-older-than", "1d", "--output", "json")
    document = result(ran)
    ages = [j for j in document["checks"] if j["what"] == "age"]
    assert len(ages) == 2
    assert all(j["checked"] is False or "days" in j["note"] for j in ages)


def test_without_a_prometheus_traffic_is_not_judged_and_that_is_said(scepsy: Scepsy, project: Path) -> None:
    ran = scepsy("drift", "--project", project)
    assert ran.code == 0
    assert "Not checked\n" in ran.out
    assert "no Prometheus is named (--prometheus)" in ran.out
    assert "No drift (" in ran.out


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([Answer(401)], "rejected the credentials (401)"),
        ([Answer(503)] * 3, "keeps failing with 503"),
        (
            [success({"resultType": "scalar", "result": [NOW, str(NOW)]}), success({}, warnings=["a store is down"])],
            "partial data",
        ),
        ([Answer(200, b"<html>")], "is not a Prometheus"),
    ],
    ids=["401", "503", "partial", "no Prometheus"],
)
def test_what_could_not_be_asked_is_an_error_and_never_no_drift(
    scepsy: Scepsy,
    project: Path,
    fake: Fake,
    answers: list[Answer],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scepsy.remote_api.retry.FIRST_DELAY", 0.0)
    fake.answers = list(answers)
    monkeypatch.setenv("PROMETHEUS_TOKEN", SECRET)
    ran = drift(scepsy, project, fake, "--output", "json")
    assert ran.code == 1
    document = result(ran)
    assert message in document["error"]["message"]
    assert document["drift"] is False
    assert [j for j in document["checks"] if j["what"] == "traffic" and not j["checked"]]
    assert message in ran.err
    assert SECRET not in ran.out + ran.err


def test_drift_elsewhere_is_told_though_prometheus_is_down(scepsy: Scepsy, project: Path, fake: Fake) -> None:
    settings = project / "scepsy.yaml"
    settings.write_text(settings.read_text().replace("v0.24.0", "v0.25.0"))
    fake.answers = [Answer(403)]
    ran = drift(scepsy, project, fake)
    assert ran.code == 2
    assert "forbidden: the credentials cannot read metrics" in ran.out


def test_a_prometheus_that_knows_nothing_of_the_plan_is_an_error(scepsy: Scepsy, project: Path, fake: Fake) -> None:
    ran = drift(scepsy, project, fake)
    assert ran.code == 1
    assert 'no series of any LLM of the plan (namespace "llm-serving")' in ran.err
    assert "podMonitor" in ran.err


def test_series_are_told_apart_by_namespace_and_by_what_is_asked_for(
    scepsy: Scepsy, project: Path, planned: Planned, fake: Fake
) -> None:
    serve(fake, planned)
    for part in traffic(planned, "generator", constant(3.0), namespace="elsewhere"):
        fake.add(part)
    assert drift(scepsy, project, fake).code == 0
    assert drift(scepsy, project, fake, "--match", "namespace=nowhere").code == 1
    assert drift(scepsy, project, fake, "--match", "cluster=prod-eu").code == 1


def test_a_pod_that_is_scraped_twice_counts_once(scepsy: Scepsy, project: Path, planned: Planned, fake: Fake) -> None:
    serve(fake, planned)
    for part in traffic(planned, "generator", labels={"job": "annotations"}):
        fake.add(part)
    assert drift(scepsy, project, fake).code == 0


def test_young_traffic_is_not_judged_yet(scepsy: Scepsy, project: Path, planned: Planned, fake: Fake) -> None:
    young = constant(3.0)
    young[:-90] = np.nan
    for llm in planned.load:
        for part in traffic(planned, llm, young):
            fake.add(part)
    ran = drift(scepsy, project, fake)
    assert ran.code == 0
    assert "how traffic varies by itself shows after 180" in ran.out
    assert "No drift (" in ran.out


def test_without_a_plan_there_is_nothing_to_compare_with(scepsy: Scepsy, tmp_path: Path) -> None:
    scepsy("init", tmp_path / "fresh", "--example")
    ran = scepsy("drift", "--project", tmp_path / "fresh", "--output", "json")
    assert ran.code == 1
    assert result(ran)["error"]["message"] == 'no plan of cluster "one-node" is committed yet'
    assert "scepsy compile --commit" in ran.err


def test_a_plan_of_another_version_is_not_compared_with(scepsy: Scepsy, project: Path) -> None:
    plan = project / "plans" / "one-node.yaml"
    plan.write_text(plan.read_text().replace("  sharing:", "  unheardOf: 1\n  sharing:"))
    assert scepsy("drift", "--project", project).code == 0  # not committed
    git(project, "commit", "-qam", "A newer compiler's")
    ran = scepsy("drift", "--project", project)
    assert ran.code == 1
    assert "the committed plans/one-node.yaml is not a Plan that this version can read" in ran.err


def test_calls_that_arrive_and_do_not_end_are_no_lack_of_load(
    scepsy: Scepsy, project: Path, planned: Planned, fake: Fake
) -> None:
    rng = np.random.default_rng(4)
    for llm in planned.load:
        for part in traffic(planned, llm, constant(0.5 if llm == "generator" else 1.0)):
            fake.add(part)
        fake.add(gateway(llm, planned.load[llm] * STEADY, NOW, rng))
    document = result(drift(scepsy, project, fake, "--output", "json"))
    assert "load-below" not in kinds(document).get("generator", [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--window", "1min"), "--window: 1min is too short"),
        (("--window", "soon"), "is not a duration"),
        (("--false-alarm-rate", "few"), "is not a number of false alarms per time"),
        (("--false-alarm-rate", "10/h"), "is not a duration"),
        (("--false-alarm-rate", "10/1h"), "--false-alarm-rate: 10/1h is too high"),
        (("--low-load-after", "5min"), "--low-load-after: 5min is too short"),
        (("--match", "namespace"), "is not LABEL=VALUE"),
        (("--cluster", "nowhere"), "nowhere"),
        (("--prometheus", "ftp://x"), "is not the address of a Prometheus"),
        (("--prometheus", f"https://me:{SECRET}@x"), "must not contain credentials"),
        (("--application", "x"), "--application needs a cluster"),
    ],
)
def test_misuse_is_told(scepsy: Scepsy, project: Path, arguments: tuple[str, ...], message: str) -> None:
    ran = scepsy("drift", "--project", project, *arguments)
    assert ran.code == 1
    assert message in ran.err
    assert SECRET not in ran.out + ran.err


def test_a_false_alarm_rate_may_be_written_in_words(
    scepsy: Scepsy, project: Path, planned: Planned, fake: Fake
) -> None:
    serve(fake, planned)
    document = result(drift(scepsy, project, fake, "--false-alarm-rate", "1 per 1000h", "--output", "json"))
    assert document["falseAlarmRate"] == pytest.approx(1e-3)


def test_old_options_and_old_keys_still_work(scepsy: Scepsy, project: Path, planned: Planned, fake: Fake) -> None:
    serve(fake, planned)
    document = result(drift(scepsy, project, fake, "--alarms", "1/1000h", "--below", "12h", "--output", "json"))
    assert document["alarms"] == document["falseAlarmRate"] == pytest.approx(1e-3)
    assert [{**check, "checked": check["judged"]} for check in document["judged"]] == [
        {**check, "judged": check["checked"]} for check in document["checks"]
    ]
    assert document["checks"]
    ran = drift(scepsy, project, fake, "--below", "5min")
    assert "--low-load-after: 5min is too short" in ran.err
