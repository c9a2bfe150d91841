"""`scepsy trace stats`: the text, the JSON, the page, and the errors for bad input."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests import published_schemas as published
from tests.conftest import Ran, Scepsy

from scepsy.demand.per_execution import groups_of, totals_of
from scepsy.report.trace_page import page
from scepsy.report.trace_plot_data import binned, concurrency, shares_of, spans_binned, typical
from scepsy.report.trace_statistics import examine
from scepsy.traces.call import Call
from scepsy.traces.trace import Trace
from scepsy.traces.trace_builder import trace_of

UNIX = 1_700_000_000.0


def line(execution: str, model: str, start: float, end: float, **more: Any) -> str:
    fields = {
        "execution": execution,
        "model": model,
        "start": start,
        "end": end,
        "inputTokens": 100,
        "outputTokens": 10,
    }
    return json.dumps(fields | more)


def written(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(text + "\n" for text in lines))
    return path


def recorded(executions: int = 60, slow: float = 0.0) -> list[str]:
    """Retrieval, then an answer, once or more; a part of the executions has a slow helper."""
    random = np.random.default_rng(executions)
    lines, began = [], UNIX
    for e in range(executions):
        began = now = began + random.exponential(5.0)
        for _ in range(random.geometric(0.5)):
            for model, width, mean in (("retriever", 2, 0.2), ("helper", 1, 12 if e < slow * executions else 0.3)):
                ends = now + random.gamma(4, mean / 4, width)
                lines += [line(f"run-{e}", model, round(now, 4), round(end, 4)) for end in ends.tolist()]
                now = float(ends.max())
    return lines


def stats(scepsy: Scepsy, file: Path, *options: object) -> Ran:
    ran = scepsy("trace", "stats", file, *options)
    assert "Traceback" not in ran.out + ran.err
    return ran


def statistics(scepsy: Scepsy, file: Path) -> dict[str, Any]:
    ran = stats(scepsy, file, "--output", "json")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    published.validate(result, "TraceStatistics")
    return result


def test_means_are_sums_over_all_executions(tmp_path: Path, scepsy: Scepsy) -> None:
    file = written(
        tmp_path / "t.jsonl",
        [
            line("a", "reader", 0.0, 1.0, inputTokens=300, cachedTokens=100),  # two calls together, half a second apart
            line("a", "reader", 0.0, 0.5),  # in their ends
            line("a", "writer", 2.0, 5.0, outputTokens=50),
            line("b", "reader", 0.0, 0.5, inputTokens=500),
        ],
    )
    result = statistics(scepsy, file)
    reader, writer = result["llms"]
    assert (result["executions"], result["calls"]) == (2, 4)
    assert [reader[key]["mean"] for key in ("calls", "groupSize", "inputTokens", "cachedTokens")] == [
        1.5,
        1.5,
        300,
        33.33333,
    ]
    assert reader["parallelism"]["mean"] == pytest.approx(2.0 / 1.5)
    assert (reader["share"]["mean"], writer["share"]["mean"]) == (0.4, 0.6)
    assert (writer["calls"]["mean"], writer["outputTokens"]["mean"], writer["seconds"]["mean"]) == (0.5, 50, 3)
    assert result["outside"]["mean"] == 0.5  # one second between reader and writer, in one of two
    assert (result["span"]["mean"]["mean"], result["span"]["p50"]) == (2.75, 2.75)
    assert writer["calls"] == {"mean": 0.5, "low": 0.0, "high": 1.0}
    assert result["arrivalsUnknown"] == "2 executions are too few to estimate a rate (at least 10 are needed)"
    assert "stable" not in result


def test_what_is_not_as_recorded_is_counted(tmp_path: Path, scepsy: Scepsy) -> None:
    file = written(
        tmp_path / "t.jsonl",
        [
            line("a", "m", 0, 1, id="1", estimated=["outputTokens"]),
            line("a", "m", 1, 2, id="2", parent=["1", "gone", "lost"]),
            line("a", "m", 2, 3, id="3", parent="gone"),
            line("a", "m", 3, 3, error="429"),
            line("a", "m", 4, 4, error="429"),
            line("a", "m", 5, 5, error="timeout"),
        ],
    )
    result = statistics(scepsy, file)
    assert result["failed"] == [{"what": "429", "calls": 2}, {"what": "timeout", "calls": 1}]
    assert result["estimated"] == [{"what": "outputTokens", "calls": 1}]
    assert result["unknownParents"] == 2
    out = stats(scepsy, file).out
    assert "3 more calls failed and are left out" in out
    assert "failed: 2 by 429" in out
    assert "estimated, not recorded: outputTokens of 1 call\n" in out
    assert "2 calls name a parent that is not in the trace" in out


@pytest.mark.parametrize(
    ("parents", "calls"),
    [
        ({"1": [], "2": "1", "3": ["1", "2"]}, 0),
        ({"3": "3"}, 1),  # of itself
        ({"1": "3", "2": "1", "3": "2"}, 1),  # in a circle
        ({"1": ["2", "3"], "2": "3"}, 2),  # of what came later
        ({"4": "3"}, 1),  # of what was still running
        ({"3": "gone"}, 0),
    ],
)
def test_parents_that_a_call_cannot_have_waited_for_are_counted(
    parents: dict[str, object], calls: int, tmp_path: Path, scepsy: Scepsy
) -> None:
    times = {"1": (0, 1), "2": (1, 2), "3": (2, 3), "4": (2.5, 4)}
    lines = [
        line("a", "m", start, end, id=name, **({"parent": parents[name]} if name in parents else {}))
        for name, (start, end) in times.items()
    ]
    file = written(tmp_path / "t.jsonl", lines)
    assert statistics(scepsy, file).get("unendedParents", 0) == calls
    words = "a parent that had not ended when they began: for these the times decide"
    assert (words in stats(scepsy, file).out) == (calls > 0)


def test_the_text_has_means_intervals_pictures_and_a_verdict_in_100_columns(tmp_path: Path, scepsy: Scepsy) -> None:
    out = stats(scepsy, written(tmp_path / "rag.jsonl", recorded())).out
    for words in (
        "rag.jsonl: 60 executions",
        "helper",
        "retriever",
        "calls per",
        "A typical execution",
        "How executions differ",
    ):
        assert words in out, words
    assert re.search(r"Arrivals: [0-9.]+/min \([0-9.]+/min – [0-9.]+/min\)", out)
    assert "Stable: shares of LLM time vary within what chance in calls and loops explains" in out
    assert "\x1b" not in out
    pictures = out.split("Arrivals")[0].splitlines()
    assert max(map(len, pictures)) <= 100
    assert any("█" in text for text in pictures)


def test_two_kinds_of_executions_are_a_warning_with_numbers(tmp_path: Path, scepsy: Scepsy) -> None:
    file = written(tmp_path / "t.jsonl", recorded(100, slow=0.2))
    result = statistics(scepsy, file)
    assert (result["stable"], [kind["fraction"] for kind in result["kinds"]]) == (False, [0.8, 0.2])
    out = stats(scepsy, file).out
    assert "Warnings (" in out
    assert "executions fall into 2 kinds by share of" in out


def test_a_call_in_a_picture_fills_its_time() -> None:
    trace = trace_of([Call("e", "m", 0, 5, 1, 1), Call("e", "m", 4, 6, 1, 1), Call("e", "m", 9, 10, 1, 1)])
    assert concurrency(trace, 0, 0, 10).tolist() == pytest.approx([1, 1, 1, 1, 2, 1, 0, 0, 0, 1])


class Page(HTMLParser):
    """Elements and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_one_file_without_scripts_that_loads_nothing(tmp_path: Path, scepsy: Scepsy) -> None:
    target = tmp_path / "page.html"
    ran = stats(scepsy, written(tmp_path / "t.jsonl", recorded()), "--html", target)
    assert (ran.code, ran.out.splitlines()[-1]) == (0, f"Wrote {target}")
    text = target.read_text(encoding="utf-8")
    found = Page(text)
    tags = {tag for tag, _ in found.tags}
    assert "svg" in tags
    assert not tags & {"script", "img", "link", "iframe", "object", "image", "foreignobject"}
    for _, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"url\((?!#)", text)
    for heading in ("A typical execution", "Share of LLM time", "Length of executions", "Arrivals", "Per LLM"):
        assert heading in found.text
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_page_is_the_same_bytes_every_time(tmp_path: Path, scepsy: Scepsy) -> None:
    file = written(tmp_path / "t.jsonl", recorded(40, slow=0.3))
    pages = []
    for name in ("a.html", "b.html"):
        stats(scepsy, file, "--html", tmp_path / name)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{$",
    "_hidden",
    "{{ 7*7 }}[bold]%s",
    "\u202eevil\x1b[31m\x00\n",
    "\ud800 alone",
    "名前" * 3000,
)


def test_names_from_strangers_stay_text(tmp_path: Path, scepsy: Scepsy) -> None:
    lines = []
    for number, name in enumerate(HOSTILE):
        for e in range(12):
            lines.append(line(f"{name}{e}", name, UNIX + e, UNIX + e + 1 + number))
            lines.append(line(f"{name}{e}", name, UNIX + e, UNIX + e, error=name))
    file = written(tmp_path / "t.jsonl", lines)
    target = tmp_path / "page.html"
    ran = stats(scepsy, file, "--html", target)
    assert ran.code == 0, ran.err
    assert "\x1b" not in ran.out
    text = target.read_text(encoding="utf-8")
    found = Page(text)
    assert not {tag for tag, _ in found.tags} & {"script", "img"}
    assert "<script>alert(1)</script>" in found.text
    assert "$\\frac{$" in found.text
    assert "{{ 7*7 }}[bold]%s" in found.text
    assert len(statistics(scepsy, file)["llms"]) == len(HOSTILE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the trace contains no calls"),
        (line("a", "m", 0, 1, error="500") + "\n", "every call of the trace failed"),
        (line("a", "m", 0, 1)[:-20] + "\n", "is it cut off?"),
        (line("a", "m", 5, 1) + "\n", "ends 4 s before it starts: did the clock go backwards?"),
        (
            line("a", "m", 0, 1, id="x") + "\n" + line("a", "m", 2, 3, id="x") + "\n",
            "duplicate call id: line 1 has it",
        ),
        (line("a", "m", UNIX * 1e3, UNIX * 1e3 + 1) + "\n", "seems to be in milliseconds"),
        (line("a", "m", 0, 1) + "\n" + line("a", "m", UNIX, UNIX + 1) + "\n", "years apart"),
        ("\x1f\x8b broken", "not a JSON object"),
    ],
)
def test_bad_input_is_explained(tmp_path: Path, scepsy: Scepsy, text: str, says: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(text)
    ran = stats(scepsy, file)
    assert (ran.code, ran.out) == (1, "")
    assert says in ran.err
    ran = stats(scepsy, file, "--output", "json")
    failure = json.loads(ran.out)
    assert failure["error"]["message"].endswith("in the documents")
    published.validate(failure, "TraceStatistics")


def test_a_damaged_gzip_file_is_called_that_and_a_good_one_is_read(tmp_path: Path, scepsy: Scepsy) -> None:
    packed = gzip.compress("".join(text + "\n" for text in recorded()).encode())
    (tmp_path / "t.jsonl.gz").write_bytes(packed)
    assert statistics(scepsy, tmp_path / "t.jsonl.gz")["executions"] == 60
    (tmp_path / "t.jsonl.gz").write_bytes(packed[:-50])
    assert "cut off or damaged" in stats(scepsy, tmp_path / "t.jsonl.gz").err


def test_a_page_that_cannot_be_written_is_an_error_before_anything_is_printed(tmp_path: Path, scepsy: Scepsy) -> None:
    file = written(tmp_path / "t.jsonl", recorded(3))
    for target, says in (
        (tmp_path / "nowhere" / "page.html", f"there is no directory {tmp_path / 'nowhere'}"),
        (tmp_path, "is a directory"),
        (file, "is an input of this command"),
    ):
        ran = stats(scepsy, file, "--html", target)
        assert (ran.code, ran.out) == (1, "")
        assert says in ran.err
    assert file.read_text().count("\n") == len(recorded(3))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_directory_that_is_read_only_is_an_error(tmp_path: Path, scepsy: Scepsy) -> None:
    file = written(tmp_path / "t.jsonl", recorded(3))
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert "cannot write" in stats(scepsy, file, "--html", closed / "page.html").err


SHAPES: dict[str, list[str]] = {
    "one call": [line("a", "m", 0, 1)],
    "one call without length": [line("a", "m", 3, 3)],
    "calls without length": [line(f"e{e}", "m", UNIX + e, UNIX + e) for e in range(30)],
    "one execution": [line("a", "m", i, i + 0.5) for i in range(40)],
    "a long execution": [line("a", "m", i, i + 1.5) for i in range(2_000)],
    "200 LLMs": [
        line(f"e{e}", f"model-{m:03}", UNIX + e, UNIX + e + 1 + m / 100) for e in range(12) for m in range(200)
    ],
    "one kind of call": [line(f"e{e}", "m", UNIX + e, UNIX + e + 1) for e in range(50)],
    "lengths from microseconds to days": [line(f"e{e}", "m", 0, 10.0 ** (e / 3 - 6)) for e in range(36)],
    "no tokens": [line(f"e{e}", "m", UNIX + e, UNIX + e + 1, inputTokens=0, outputTokens=0) for e in range(12)],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_trace_has_statistics_and_a_page(shape: str, tmp_path: Path, scepsy: Scepsy) -> None:
    file = written(tmp_path / "t.jsonl", SHAPES[shape])
    ran = stats(scepsy, file, "--html", tmp_path / "page.html")
    assert ran.code == 0, ran.err
    statistics(scepsy, file)
    for word in ("nan", "inf", "-0 "):
        assert not re.search(rf"\b{word}\b", ran.out), word
    assert max(map(len, ran.out.split("Arrivals")[0].splitlines())) <= 100


calls = st.builds(
    lambda execution, model, start, length, tokens, output: Call(
        f"e{execution}", f"m{model}", start, start + length, tokens, output, min(tokens, 64.0)
    ),
    st.integers(0, 25),
    st.integers(0, 3),
    st.floats(0, 1e5).map(lambda t: round(t, 3)),
    st.floats(0, 1e4) | st.just(0.0),
    st.integers(0, 100_000).map(float),
    st.integers(0, 5_000).map(float),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(calls, min_size=1, max_size=80).map(trace_of))
def test_any_trace_has_figures_in_order(trace: Trace) -> None:
    examined = examine(trace, "t.jsonl", "sha256:0")
    for llm in examined.statistics.llms:
        for estimate in (llm.calls, llm.parallelism, llm.group_size, llm.seconds, llm.input_tokens, llm.share):
            if estimate is not None and estimate.low is not None and estimate.high is not None:
                assert estimate.low <= estimate.mean <= estimate.high
        assert llm.parallelism is None or llm.parallelism.mean >= 1 - 1e-6
        assert llm.share is None or 0 <= llm.share.mean <= 1
    total = sum(llm.share.mean for llm in examined.statistics.llms if llm.share)
    assert total == pytest.approx(1.0, abs=1e-5) or total == 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(calls, min_size=1, max_size=80).map(trace_of))
def test_the_plots_of_any_trace_show_all_of_it(trace: Trace) -> None:
    totals = totals_of(trace, groups_of(trace))
    edges, counts = spans_binned(totals.span, 40)
    assert np.isfinite(edges).all()
    assert (np.diff(edges) > 0).all()
    assert counts.sum() == len(trace.executions)
    execution = typical(totals.span)
    length = float(totals.span[execution])
    for llm in range(len(trace.llms)):
        shares = shares_of(totals, llm)
        assert ((shares >= 0) & (shares <= 1)).all()
        assert binned(shares, 100).sum() == len(shares)
        if length > 0:
            running = concurrency(trace, execution, llm, 400)
            mine = slice(*np.searchsorted(trace.execution, [execution, execution + 1]))
            seconds = (trace.end - trace.start)[mine][trace.llm[mine] == llm].sum()
            assert float(running.sum()) * length / 400 == pytest.approx(float(seconds), rel=1e-3, abs=1e-4 * length)


# Few: a page has seven drawings, and each shape above is drawn too.
@settings(max_examples=3, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(calls, min_size=1, max_size=80).map(trace_of))
def test_any_trace_has_a_page(trace: Trace) -> None:
    found = Page(page(examine(trace, "t.jsonl", "sha256:0")))
    assert sum(tag == "svg" for tag, _ in found.tags) >= 3
    assert "nan" not in found.text
