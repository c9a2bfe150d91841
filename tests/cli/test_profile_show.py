"""`scepsy profile show`: measured and estimated curves side by side, in a terminal and as a page."""

from __future__ import annotations

import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.conftest import Ran, Scepsy

from scepsy.documents import API_VERSION, Profile, emit
from scepsy.report.profile_comparison import Curve, Groups, known_of
from scepsy.report.profile_page import page
from scepsy.report.profile_terminal import show_profiles
from scepsy.report.text_plot import Line, beside, text_plot
from scepsy.report.trace_text import brief

H100, L40S = "NVIDIA-H100-80GB-HBM3", "NVIDIA-L40S"
ENGINE = "0.24.0"


def point(k: int, latency: float, output: float, **more: Any) -> dict[str, Any]:
    """A tenth of a call is before its first token."""
    times = {"latency": latency, "ttft": latency / 10, "tpot": 0.9 * latency / (output - 1)}
    return {"concurrency": k} | {name: f"{seconds:.9f}s" for name, seconds in times.items()} | more


def rate_point(rate: float, latency: float, **more: Any) -> dict[str, Any]:
    times = dict.fromkeys(("latency", "p50", "p95", "p99"), f"{latency}s")
    fields = {"rate": f"{rate}/s", "completed": f"{rate}/s", "stable": True, "ttft": "0.1s", "concurrency": 2.0}
    return fields | times | {"calls": 500, "interval": 0.04} | more


def series(latencies: dict[int, float], *, tp: int = 1, share: float = 1.0, tokens: tuple[float, float] = (512.0, 91.0),
           interval: float | None = None, **more: Any) -> dict[str, Any]:  # fmt: skip
    known = {} if interval is None else {"interval": interval, "calls": 400}
    return {
        "tp": tp,
        "share": share,
        "mix": {"input": tokens[0], "output": tokens[1], "cached": 0.0},
        "points": [point(k, latency, tokens[1], **known) for k, latency in latencies.items()],
    } | more


def profile(
    name: str, source: str, *made: dict[str, Any], model: str = "org/Model-7B", product: str = H100,
    version: str = ENGINE, unusable: list[dict[str, Any]] | None = None, **provenance: Any,
) -> Profile:  # fmt: skip
    return Profile.model_validate(
        {
            "apiVersion": API_VERSION,
            "kind": "Profile",
            "metadata": {"name": name},
            "spec": {
                "source": source,
                "model": model,
                "product": product,
                "engine": {"name": "vllm", "version": version},
                "architecture": {
                    "parameters": 7_000_000_000,
                    "bytesPerParameter": 2.0,
                    "layers": 32,
                    "attentionHeads": 32,
                    "kvHeads": 8,
                    "headDim": 128,
                    "contextLength": 32768,
                },
                "provenance": {"tool": "a tool 1.0"} | provenance,
                "series": list(made),
                "unusable": unusable or [],
            },
        }
    )


# 10 % slower alone, 25 % at k = 8.
MEASURED = series(
    {1: 1.1, 2: 1.26, 4: 1.5, 8: 2.5},
    interval=0.03,
    openLoop=[rate_point(1.0, 1.3), rate_point(2.0, 1.9), rate_point(9.0, 30.0, stable=False)],
    saturation={"low": "2.9/s", "high": "3.1/s"},
)
ESTIMATED = series({1: 1.0, 2: 1.2, 4: 1.4, 8: 2.0})
BOTH = (
    profile("measured-h100", "measured", MEASURED, date="2026-11-20", imageDigest="sha256:1234"),
    profile("estimated-h100", "estimated", ESTIMATED, series({1: 0.6, 8: 1.1}, tp=2)),
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project without anything in it."""
    (tmp_path / "scepsy.yaml").write_text(f"apiVersion: {API_VERSION}\nkind: Project\nmetadata: {{name: here}}\n")
    (tmp_path / "profiles").mkdir()
    return tmp_path


def holding(project: Path, *profiles: Profile) -> Path:
    for one in profiles:
        (project / "profiles" / f"{one.metadata.name}.yaml").write_bytes(emit(one.plain()))
    return project


@pytest.fixture(autouse=True)
def _no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The width is that of a pipe, whoever runs the tests: pytest's workers have COLUMNS set."""
    monkeypatch.delenv("COLUMNS", raising=False)


def show(scepsy: Scepsy, project: Path, model: str = "org/Model-7B", *options: object) -> Ran:
    ran = scepsy("profile", "show", model, "--project", project, *options)
    assert "Traceback" not in ran.out + ran.err
    return ran


def rows(text: str, begin: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip().startswith(begin)]


# The terminal


def test_measured_and_estimated_are_told_apart_by_letter_and_word(project: Path, scepsy: Scepsy) -> None:
    ran = show(scepsy, holding(project, *BOTH))
    assert ran.code == 0, ran.err
    assert "org/Model-7B: 2 profiles (1 measured, 1 estimated)" in ran.out
    assert "Small letters: estimated, not measured." in ran.out
    assert rows(ran.out, "A  measured") == [
        ["A", "measured", "1", "1", "512/91", "1.1s", "3.2+", "at", "8", "2.9–3.1", "3%"]
    ]
    assert rows(ran.out, "a  estimated") == [["a", "estimated", "1", "1", "512/91", "1s", "4+", "at", "8", "–", "–"]]
    # A degree that was not measured has a small letter of its own.
    assert rows(ran.out, "b  estimated")[0][2] == "2"
    assert "\x1b" not in ran.out


@pytest.mark.parametrize(
    ("latencies", "capacity"),
    [
        ({1: 0.25}, "4"),  # one point alone: nobody knows
        ({1: 1.0, 8: 2.0}, "4+"),  # 1/s, then 4/s
        ({1: 1.0, 8: 2.0, 16: 3.9}, "4.1"),  # 4/s, then 4.1/s
    ],
)
def test_a_plus_marks_throughput_that_still_rose_from_one_point_to_the_last(
    latencies: dict[int, float], capacity: str, project: Path, scepsy: Scepsy
) -> None:
    ran = show(scepsy, holding(project, profile("p", "measured", series(latencies))))
    assert rows(ran.out, "A  measured")[0][6] == capacity
    assert ("throughput still rose at the last k" in ran.out) == capacity.endswith("+")


def test_figures_with_busy_neighbours_are_told_from_those_of_an_idle_gpu(project: Path, scepsy: Scepsy) -> None:
    half = {1: 1.3, 8: 2.9}
    made = (
        profile("alone", "measured", series(half, share=0.5)),
        profile("beside", "measured", series(half, share=0.5, neighbours="busy")),
    )
    ran = show(scepsy, holding(project, *made))
    assert [row[3:5] for row in rows(ran.out, "A ") + rows(ran.out, "B ")] == [["0.5", "512/91"], ["0.5", "busy"]]
    assert "busy: measured while another program used the GPU's memory bandwidth" in ran.out
    assert page(known_of("org/Model-7B", ENGINE, made)).count("<small>busy neighbours</small>") == 1


def test_the_estimates_error_stands_at_every_measured_point(project: Path, scepsy: Scepsy) -> None:
    ran = show(scepsy, holding(project, *BOTH))
    assert "off by 7.9% in the median, -20.0% to -4.8%" in ran.out
    assert rows(ran.out, "error")[0] == ["error", "-9%", "-5%", "-7%", "-20%"]


def test_open_loop_points_stand_beside_what_r_of_k_predicts(project: Path, scepsy: Scepsy) -> None:
    ran = show(scepsy, holding(project, *BOTH))
    assert rows(ran.out, "sustained") == [["sustained", "yes", "yes", "no"]]
    assert rows(ran.out, "calls/s")[-1] == ["calls/s", "1", "2", "9"]
    (predicted,) = rows(ran.out, "predicted")
    # Beyond capacity a queue grows without end: no figure, and no error.
    assert predicted[-2:] == ["no", "limit"]
    assert len(rows(ran.out, "error")[1]) == 3


def test_a_profile_of_another_engine_is_called_stale_and_an_estimate_for_another_is_said(
    project: Path, scepsy: Scepsy
) -> None:
    old = profile("old", "imported", ESTIMATED, version="0.19.1")
    guess = profile("guess", "estimated", ESTIMATED, version="0.14.0")
    ran = show(scepsy, holding(project, old, guess))
    assert "imported, stale" in ran.out
    assert "old: imported with vLLM 0.19.1, the engine is 0.24.0" in ran.out
    assert "guess: estimated for vLLM 0.14.0, the engine is 0.24.0" in ran.out


def test_shapes_that_do_not_run_are_said_even_where_nothing_else_is_known(project: Path, scepsy: Scepsy) -> None:
    shape = {"tp": 1, "share": 0.2, "reason": "out of memory"}
    ran = show(scepsy, holding(project, profile("none", "measured", unusable=[shape])))
    assert ran.code == 0, ran.err
    assert f"Does not run: {H100} TP 1, share 0.2: out of memory" in ran.out


@pytest.mark.parametrize("columns", [80, 120, 160])
def test_everything_fits_into_the_terminal(
    project: Path, scepsy: Scepsy, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    ran = show(scepsy, holding(project, *BOTH, profile("more", "imported", series({1: 1.0}, tokens=(9000.0, 3.0)))))
    assert max(len(line) for line in ran.out.splitlines()) <= columns
    assert rows(ran.out, "A  measured")


def test_a_product_narrows_it_down(project: Path, scepsy: Scepsy) -> None:
    holding(project, *BOTH, profile("other", "estimated", ESTIMATED, product=L40S))
    ran = show(scepsy, project, "org/Model-7B", "--product", L40S)
    assert "1 profile (1 estimated)" in ran.out
    assert H100 not in ran.out
    wrong = show(scepsy, project, "org/Model-7B", "--product", "NVIDIA-L40")
    assert wrong.code == 1
    assert f'did you mean "{L40S}"?' in wrong.err


# Which model


def test_the_organisation_need_not_be_typed(project: Path, scepsy: Scepsy) -> None:
    assert "org/Model-7B: 2 profiles" in show(scepsy, holding(project, *BOTH), "Model-7B").out
    ran = show(scepsy, holding(project, profile("b", "estimated", ESTIMATED, model="us/Model-7B")), "Model-7B")
    assert ran.code == 1
    assert "may be one of: org/Model-7B, us/Model-7B" in ran.err


def test_a_misspelt_model_is_asked_back(project: Path, scepsy: Scepsy) -> None:
    ran = show(scepsy, holding(project, *BOTH), "org/Modle-7B")
    assert ran.code == 1
    assert 'there is no profile of the model "org/Modle-7B"' in ran.err
    assert 'did you mean "org/Model-7B"?' in ran.err


def test_without_profiles_it_says_how_to_get_one(project: Path, scepsy: Scepsy) -> None:
    ran = show(scepsy, project)
    assert ran.code == 1
    assert "there are no profiles in" in ran.err
    for way in ("scepsy profile run", "scepsy profile import", "scepsy profile estimate org/Model-7B"):
        assert way in ran.err


def test_a_profile_that_cannot_be_read_is_told_and_hides_no_other(project: Path, scepsy: Scepsy) -> None:
    holding(project, *BOTH)
    (project / "profiles" / "broken.yaml").write_text("kind: Profile\n")
    ran = show(scepsy, project)
    assert ran.code == 0
    assert "profiles/broken.yaml:1:1" in ran.err
    other = show(scepsy, project, "org/Other")
    assert other.code == 1
    assert "profiles/broken.yaml:1:1" in other.err


def test_outside_a_project_it_says_so(tmp_path: Path, scepsy: Scepsy) -> None:
    ran = show(scepsy, tmp_path)
    assert ran.code == 1
    assert "there is no scepsy.yaml" in ran.err


# The page


class Well(HTMLParser):
    """Checks that elements are closed in order, and collects what they refer to."""

    VOID = frozenset(("meta", "br"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Well:
    parser = Well()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_is_well_formed_and_asks_nothing_of_others(project: Path, scepsy: Scepsy) -> None:
    ran = show(scepsy, holding(project, *BOTH), "org/Model-7B", "--html", project / "page.html")
    assert ran.code == 0, ran.err
    text = (project / "page.html").read_text()
    well = parsed(text)
    assert not well.tags & {"script", "link", "iframe", "img", "object", "embed", "form", "base"}
    assert all(reference.startswith("#") for reference in well.references)
    assert not re.search(r"@import|url\((?!#)", text)
    # Names of XML vocabularies are no addresses that anybody fetches.
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "prefers-color-scheme: dark" in text


def test_the_page_is_the_same_bytes_for_the_same_profiles() -> None:
    first, second = (page(known_of("org/Model-7B", ENGINE, BOTH[::step])) for step in (1, -1))
    assert first == second


def test_the_page_says_what_is_measured_what_is_estimated_and_how_far_off_it_is() -> None:
    text = re.sub(r"\s+", " ", parsed(page(known_of("org/Model-7B", ENGINE, BOTH))).text)
    for said in (
        "measured by Scepsy",
        "estimated, not measured",
        "Points of A: measured, TP 1, share 1",
        "It is off by 7.9% in the median, -20.0% to -4.8%.",
        "beyond capacity",
        "measured-h100: measured",
        "estimated-h100: estimated",
        "sha256:1234",
        "±3%",
    ):
        assert said in text


def test_error_bars_stand_only_where_an_interval_is_known() -> None:
    def bars(interval: float | None) -> int:
        made = profile("one", "measured", series({1: 1.0, 2: 1.2, 4: 1.5}, interval=interval))
        return page(known_of("org/Model-7B", ENGINE, [made])).count("<path")

    # Three bars with two caps each, in the two plots that have them; and a cap's shape in each.
    assert bars(0.05) > bars(None)


def test_words_of_strangers_are_shown_and_not_obeyed() -> None:
    evil = '<script>alert(1)</script><img src="http://evil.example/x"> $\\frac{1}{2}$ &amp; \x1b[2J {{ 7 * 7 }}'
    shape = {"tp": 1, "share": 0.2, "reason": evil}
    made = profile(
        "evil", "measured", MEASURED, unusable=[shape],
        tool=evil, database=evil, command=evil, driver=evil, flags=[evil], notes=evil, traceDigest=evil,
    )  # fmt: skip
    well = parsed(page(known_of("org/Model-7B", ENGINE, [made])))
    assert "script" not in well.tags
    assert "img" not in well.tags
    assert "<script>alert(1)</script>" in well.text
    assert "\x1b" not in well.text
    assert "{{ 7 * 7 }}" in well.text


def test_in_the_terminal_they_are_words_too(project: Path, scepsy: Scepsy) -> None:
    evil = "[red]x[/red]\x1b[2J"
    made = profile("evil", "measured", ESTIMATED, unusable=[{"tp": 1, "share": 0.2, "reason": evil}])
    ran = show(scepsy, holding(project, made))
    assert "[red]x[/red]" in ran.out
    assert "\x1b" not in ran.out


def test_a_page_is_not_written_over_a_folder(project: Path, scepsy: Scepsy) -> None:
    ran = show(scepsy, holding(project, *BOTH), "org/Model-7B", "--html", project / "profiles")
    assert ran.code == 1
    assert "is a directory" in ran.err


# Comparisons


def test_an_estimate_for_other_calls_is_taken_to_those_that_were_measured() -> None:
    known = known_of(
        "org/Model-7B",
        ENGINE,
        [
            profile("m", "measured", series({1: 1.1}, tokens=(512.0, 91.0))),
            profile("e", "estimated", series({1: 2.0, 2: 2.2}, tokens=(512.0, 182.0))),
        ],
    )
    # Other calls, another panel; the error is told all the same.
    assert [(p.output, [c.letter for c in p.curves]) for p in known.panels] == [(91.0, ["A"]), (182.0, ["a"])]
    compared = known.panels[0].curves[0].compared
    assert compared is not None
    assert (compared.profile, compared.tokens, compared.rescaled) == ("e", (512.0, 182.0), True)
    # A tenth of it is before the first token, the rest for 181 further tokens, of which 90 are left.
    assert compared.points[0].estimate == pytest.approx(0.2 + 1.8 * 90 / 181, rel=0.02)


def test_estimates_of_another_product_are_no_comparison() -> None:
    known = known_of("org/Model-7B", ENGINE, [BOTH[0], profile("e", "estimated", ESTIMATED, product=L40S)])
    assert known.panels[0].curves[0].compared is None


def test_real_curves_come_first_whatever_their_product_is_called() -> None:
    known = known_of("org/Model-7B", ENGINE, [profile("a", "estimated", ESTIMATED, product="A100"), BOTH[0], BOTH[1]])
    assert [(p.product, p.real) for p in known.panels] == [(H100, True), ("A100", False)]


curves = st.builds(
    lambda ks, base, slope, tp, share, tokens, interval: series(
        {k: base * (1 + slope * k) for k in ks}, tp=tp, share=share, tokens=tokens, interval=interval
    ),
    st.sets(st.integers(1, 4096), min_size=1, max_size=9).map(sorted),
    st.floats(1e-3, 1e4),
    st.floats(0, 10),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 10).map(lambda tenths: tenths / 10),
    st.tuples(st.floats(0, 1e6), st.floats(2, 1e6)),
    st.none() | st.floats(0, 3),
)
rates = st.lists(
    st.builds(rate_point, st.integers(1, 9999).map(lambda n: n / 10), st.floats(1e-3, 1e3), stable=st.booleans()),
    max_size=5,
    unique_by=lambda point: point["rate"],
).map(lambda points: sorted(points, key=lambda point: float(point["rate"][:-2])))


drawn_profiles = st.lists(
    st.tuples(
        st.sampled_from(["measured", "imported", "estimated"]),
        st.sampled_from([H100, L40S]),
        st.lists(st.builds(lambda curve, points: curve | {"openLoop": points}, curves, rates), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
).map(
    lambda drawn: [profile(f"p{i}", source, *made, product=product) for i, (source, product, made) in enumerate(drawn)]
)


@settings(max_examples=10, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(drawn_profiles)
def test_any_profiles_fit_into_80_columns(profiles: list[Profile]) -> None:
    known = known_of("org/Model-7B", ENGINE, profiles)
    series_count = sum(len(made.spec.series) for made in profiles)
    assert sum(len(panel.curves) for panel in known.panels) == series_count
    console = Console(width=80, file=io.StringIO(), highlight=False)
    show_profiles(console, known)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, printed.splitlines())) <= 80
    assert "nan" not in printed


# Few: each panel of a page has two drawings.
@settings(max_examples=2, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(drawn_profiles)
def test_any_profiles_have_a_page(profiles: list[Profile]) -> None:
    assert "nan" not in parsed(page(known_of("org/Model-7B", ENGINE, profiles))).text


GROUPS_OF_FOUR = ((4, 1.0),)


def test_calls_that_came_in_groups_are_predicted_in_groups() -> None:
    made = series({1: 1.0, 2: 1.2, 4: 1.6, 8: 2.4}, openLoop=[rate_point(0.01, 1.6), rate_point(2.0, 2.5)])
    measured = profile("m", "measured", made)

    def curve(groups: dict[str, Groups]) -> Curve:
        return known_of("org/Model-7B", ENGINE, [measured], groups).panels[0].curves[0]

    single, grouped = curve({}), curve({"m": GROUPS_OF_FOUR})
    assert (single.grouped, grouped.grouped) == (False, True)
    # Hardly any load: a call has nobody beside it, or the three others of its group.
    assert single.predicted[0].latency == pytest.approx(1.0, rel=0.02)
    assert grouped.predicted[0].latency == pytest.approx(1.6, rel=0.02)
    assert grouped.single == single.line
    assert "dotted: single calls" in page(known_of("org/Model-7B", ENGINE, [measured], {"m": GROUPS_OF_FOUR}))


def test_the_groups_are_those_of_the_trace_that_was_replayed(project: Path, scepsy: Scepsy) -> None:
    lines = []
    for execution in range(10):
        for _ in range(4):
            call = {
                "execution": f"e{execution}",
                "model": "ranker",
                "start": 9.0 * execution,
                "end": 9.0 * execution + 2,
            }
            lines.append(json.dumps({**call, "inputTokens": 512, "outputTokens": 91}) + "\n")
    (project / "traces").mkdir()
    (project / "traces" / "flow.jsonl").write_text("".join(lines))
    (project / "workflows").mkdir()
    (project / "workflows" / "flow.yaml").write_text(
        f"apiVersion: {API_VERSION}\nkind: Workflow\nmetadata: {{name: flow}}\nspec:\n  target: {{rate: 1/s}}\n"
        "  llms: [{name: ranker, model: org/Model-7B}]\n  demand: {traces: ../traces/flow.jsonl}\n"
    )
    digest = "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()
    ran = show(scepsy, holding(project, profile("m", "measured", MEASURED, traceDigest=digest)))
    assert "against the recorded groups of calls as R(k) predicts them" in ran.out
    other = show(scepsy, holding(project, profile("m", "measured", MEASURED, traceDigest="sha256:00")))
    assert "against single calls as R(k) predicts them" in other.out


# Plots of characters


def test_curves_are_drawn_where_they_belong() -> None:
    plot = text_plot("time", [Line("A", "", [1, 2, 4], [1.0, 2.0, 4.0])], 20, 7, brief)
    assert [line.plain for line in plot] == [
        "time                ",
        "   4 s┤           ·A",
        "      │         ··· ",
        "2.52 s┤       ···   ",
        "      │     ·A·     ",
        "1.59 s┤   ···       ",
        "      │ ···         ",
        "   1 s┤A·           ",
        "      └─────────────",
        "       1     2     4",
    ]


def test_of_curves_that_meet_the_first_is_seen() -> None:
    lines = [Line("A", "", [1, 2], [1.0, 1.0]), Line("a", "", [1, 2], [1.0, 1.0])]
    drawn = "".join(line.plain for line in text_plot("", lines, 30, 5, brief))
    assert drawn.count("A") == 2
    assert "a" not in drawn


def test_plots_stand_beside_each_other_in_columns() -> None:
    plot = text_plot("one", [Line("A", "", [1], [1.0])], 20, 3, brief)
    joined = beside([plot, plot])
    assert {len(line.plain.rstrip()) > 20 for line in joined[:1]} == {True}
    assert max(len(line.plain) for line in joined) == 42
