"""`scepsy trace import`: from files to one trace, and what it says when they are wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import Ran, Scepsy

from scepsy.errors import ScepsyError
from scepsy.traces.call import Call, encoded
from scepsy.traces.importers import json_records as reading
from scepsy.traces.importers.import_files import import_files
from scepsy.traces.importers.registry import FORMATS
from scepsy.traces.trace_reader import parse_trace

NAMES = [known.name for known in FORMATS]

WORKFLOW = """\
apiVersion: scepsy.dev/v1alpha1
kind: Workflow
metadata:
  name: support
spec:
  target: {rate: 1/s}
  llms:
    - {name: planner, model: Qwen/Qwen3-8B}
    - {name: writer, model: meta-llama/Llama-3.1-8B-Instruct}
    - {name: critic, model: meta-llama/Llama-3.1-8B-Instruct}
  demand: {traces: ../traces/support.jsonl}
"""
PROJECT = "apiVersion: scepsy.dev/v1alpha1\nkind: Project\nmetadata: {name: shop}\n"


def generation(own: str = "a", model: str | None = "planner", trace: str = "t1", begin: int = 0, **more) -> dict:
    at = "2025-04-12T10:23:{:02}Z"
    return {
        "id": own,
        "traceId": trace,
        "type": "GENERATION",
        "model": model,
        "startTime": at.format(begin),
        "endTime": at.format(begin + 1),
        "usageDetails": {"input": 10, "output": 5},
        **more,
    }


def native(execution: str = "e", **more) -> str:
    call = {"execution": execution, "model": "planner", "start": 0, "end": 1, "inputTokens": 10, "outputTokens": 5}
    return json.dumps(call | more) + "\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "shop"
    (directory / "workflows").mkdir(parents=True)
    (directory / "scepsy.yaml").write_text(PROJECT)
    (directory / "workflows/support.yaml").write_text(WORKFLOW)
    return directory


@pytest.fixture
def export(tmp_path: Path) -> Path:
    path = tmp_path / "export.json"
    path.write_text(json.dumps([generation("a"), generation("b", begin=2)]))
    return path


def test_an_export_becomes_the_trace_of_a_workflow(scepsy: Scepsy, project: Path, export: Path):
    export.write_text(json.dumps([generation("a"), generation("b", "Qwen/Qwen3-8B", begin=2), generation("c", None)]))
    ran = scepsy("trace", "import", export, "--workflow", "support", "--project", project)
    assert ran == Ran(
        0,
        f"Read:\n"
        f"  {export}  langfuse  2 calls  1 execution  2025-04-12 10:23:00 … 10:23:03 UTC\n"
        f"LLMs:\n"
        f"  planner  2 calls  20 input tokens  0 of them cached  10 output tokens\n"
        f"Skipped:\n"
        f"  1  LLM calls without a model\n"
        f"Wrote {project}/traces/support.jsonl: 2 calls of 1 execution\n"
        f"Next: scepsy compile; workflows/support.yaml already names this trace\n",
        "",
    )
    assert (project / "traces/support.jsonl").read_text() == (
        '{"execution":"t1","id":"a","parent":[],"model":"planner","start":1744453380.0,"end":1744453381.0,'
        '"inputTokens":10,"outputTokens":5,"cachedTokens":0}\n'
        '{"execution":"t1","id":"b","parent":"a","model":"planner","start":1744453382.0,"end":1744453383.0,'
        '"inputTokens":10,"outputTokens":5,"cachedTokens":0}\n'
    )
    assert sorted(p.name for p in (project / "traces").iterdir()) == ["support.jsonl"]


def test_it_works_outside_a_project(scepsy: Scepsy, tmp_path: Path, export: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    ran = scepsy("trace", "import", export, "--workflow", "w", "-o", tmp_path / "o.jsonl", "--project", empty)
    assert ran.code == 0
    assert "note: no project found here, so models keep their names" in ran.out
    ran = scepsy("trace", "import", export, "--workflow", "w", "--project", empty)
    assert (ran.code, ran.out) == (1, "")
    assert "there is no scepsy.yaml in" in ran.err
    assert "-o" in ran.err


def test_a_project_need_not_be_finished(scepsy: Scepsy, project: Path, export: Path):
    (project / "workflows/support.yaml").write_text(WORKFLOW.replace("support", "other"))
    ran = scepsy("trace", "import", export, "--workflow", "support", "--project", project)
    assert ran.code == 0
    assert 'the project has no workflow "support" yet, so models keep their names' in ran.out
    assert "Next: in spec of workflows/support.yaml write  demand: {traces: ../traces/support.jsonl}\n" in ran.out


def test_a_broken_document_matters_if_it_may_be_the_workflows(scepsy: Scepsy, project: Path, export: Path):
    (project / "workflows/broken.yaml").write_text("kind: Workflow\nspec: [")
    assert scepsy("trace", "import", export, "--workflow", "support", "--project", project).code == 0
    ran = scepsy("trace", "import", export, "--workflow", "broken", "--project", project)
    assert ran.code == 1
    assert "workflows/broken.yaml:" in ran.err


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("planner", (), "planner"),
        ("Qwen/Qwen3-8B", (), "planner"),
        ("qwen/qwen3-8b", (), "planner"),
        ("Qwen3-8B", (), "planner"),
        ("gpt=4", ("gpt=4=writer",), "writer"),
        ("planner", ("planner=critic",), "critic"),
        ("gpt-4", (), None),
        ("Llama-3.1-8B-Instruct", (), None),
    ],
    ids=["its name", "its model's id", "the case apart", "the last part", "an option", "an option first", "nothing", "two of them"],
)  # fmt: skip
def test_a_model_of_the_trace_is_an_llm_of_the_workflow(
    scepsy: Scepsy, project: Path, export: Path, model: str, options: tuple, expected: str | None
):
    export.write_text(json.dumps(generation(model=model)))
    given_ = [part for option in options for part in ("--llm", option)]
    ran = scepsy("trace", "import", export, "--workflow", "support", "--project", project, *given_)
    if expected:
        assert json.loads((project / "traces/support.jsonl").read_text())["model"] == expected
    else:
        assert ran.code == 1
        assert f"--llm {model}=planner|writer|critic" in ran.err
        assert not (project / "traces").exists()


def test_models_that_match_nothing_are_all_listed(scepsy: Scepsy, project: Path, export: Path):
    models = ["gpt-4o", "gpt-4o", "my model", "planner", "Llama-3.1-8B-Instruct"]
    export.write_text(json.dumps([generation(str(i), model) for i, model in enumerate(models)]))
    ran = scepsy("trace", "import", export, "--workflow", "support", "--project", project)
    assert ran == Ran(
        1,
        "",
        "error: models that are no LLM of the workflow, by name or by model id:\n"
        "  gpt-4o                 2 calls\n"
        "  Llama-3.1-8B-Instruct  1 calls  served by writer and critic\n"
        "  my model               1 calls\n"
        "  hint: map each model to an LLM: --llm gpt-4o=planner|writer|critic"
        " --llm Llama-3.1-8B-Instruct=planner|writer|critic --llm 'my model'=planner|writer|critic\n",
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--llm", "planner"), '--llm "planner" is not MODEL=NAME'),
        (("--llm", "=x"), '--llm "=x" is not MODEL=NAME'),
        (("--llm", "m=planer"), 'the workflow has no LLM "planer"\n  hint: did you mean "planner"?'),
        (("--llm", "m=planner", "--llm", "m=writer"), '--llm gives "m" two names: planner and writer'),
        (("--workflow", "No Name"), "--workflow: 'No Name' is not a Kubernetes name"),
        (("--workflow", "../up"), "--workflow: '../up' is not a Kubernetes name"),
        (("-o", "nowhere/else/x.jsonl"), "nowhere/else does not exist"),
        (("-o", "export.json", "--force"), "is one of the files to import"),
    ],
)
def test_wrong_options(scepsy: Scepsy, project: Path, export: Path, monkeypatch, arguments: tuple, expected: str):
    monkeypatch.chdir(export.parent)
    ran = scepsy("trace", "import", export, "--workflow", "support", "--project", project, *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert expected in ran.err
    assert not (project / "traces").exists()


def test_an_option_for_a_model_that_is_not_there_is_pointed_out(scepsy: Scepsy, project: Path, export: Path):
    ran = scepsy("trace", "import", export, "--workflow", "support", "--project", project, "--llm", "gpt=writer")
    assert ran.code == 0
    assert "note: --llm gpt=…: no call has that model" in ran.out


def test_a_file_is_replaced_only_if_asked_for(scepsy: Scepsy, project: Path, export: Path):
    target = project / "traces/support.jsonl"
    target.parent.mkdir()
    target.write_text("mine")
    command = ("trace", "import", export, "--workflow", "support", "--project", project)
    ran = scepsy(*command)
    assert ran == Ran(1, "", f"error: {target} exists\n  hint: replace it with --force, or name another file with -o\n")
    assert target.read_text() == "mine"
    assert scepsy(*command, "--force").code == 0
    assert target.read_text().count("\n") == 2


def test_the_default_path_is_not_written_through_a_link_out_of_the_repository(scepsy, project, export, tmp_path):
    (project / "traces").symlink_to(tmp_path)
    ran = scepsy("trace", "import", export, "--workflow", "support", "--project", project)
    assert ran.code == 1
    assert "symlink" in ran.err
    assert not (tmp_path / "support.jsonl").exists()


TRUNCATED = json.dumps([generation()], indent=1)[:-40]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "export.json: the file is empty"),
        (b"\xef\xbb\xbf\n \n", "export.json: the file is empty"),
        (json.dumps([generation()]).encode("utf-16"), "export.json: the file is UTF-16\n  hint: save it as UTF-8"),
        (json.dumps([generation()]).encode("utf-16-le"), "export.json: the file is UTF-16\n  hint: save it as UTF-8"),
        (b'{"a": "\xff"}', "export.json: line 1, byte 8 is not UTF-8"),
        (b"\x1f\x8b\x08 not gzip", "export.json: the gzip file is cut off or damaged"),
        (gzip.compress(b"[" * 1000, mtime=0)[:-9], "export.json: the gzip file is cut off or damaged"),
        (TRUNCATED.encode(), "export.json:9:20: not valid JSON: expecting property name enclosed in double quotes\n  hint: the file is cut off: export it again"),
        (b'{"traceId": "t", ', "export.json:1:18: not valid JSON: expecting property name"),
        (b"id,traceId,type\n1,2,GENERATION\n", "export.json:1:1: not valid JSON: expecting value"),
        (b"[" * 200_000, "not valid JSON: nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not valid JSON: a number with too many digits"),
        (b'{"hello": 1}', 'unknown format; its first object has "hello". Expected one of:\n  otlp           an object with "resourceSpans"'),
        (b"[]", "unknown format. Expected one of:"),
        (b"17", "unknown format. Expected one of:"),
        (b'{"resourceSpans": []}', "there are no LLM calls in"),
        (json.dumps([generation(model=None), generation(endTime=None)]).encode(), "skipped:\n       1  LLM calls without a model\n       1  LLM calls without a start or an end"),
        (json.dumps(generation(level="ERROR")).encode(), "all calls failed (1 call): they cannot serve as demand"),
        (json.dumps(generation(usageDetails=None)).encode(), "no token counts, no other call to estimate them from and no texts: planner (1 calls)"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_imported(scepsy: Scepsy, project: Path, export: Path, content: bytes, expected: str):
    export.write_bytes(content)
    ran = scepsy("trace", "import", export, "--workflow", "support", "--project", project)
    assert (ran.code, ran.out) == (1, "")
    assert expected in ran.err
    assert "Traceback" not in ran.err
    assert not (project / "traces").exists()


def test_a_directory_or_nothing_instead_of_a_file(scepsy: Scepsy, project: Path, tmp_path: Path):
    command = ("trace", "import", "--workflow", "support", "--project", project)
    assert "is a directory\n  hint: name the files in it:" in scepsy(*command, tmp_path).err
    assert "there is no file" in scepsy(*command, tmp_path / "nothing").err


@pytest.mark.parametrize(
    ("lines", "skipped"),
    [
        ([generation("a"), generation("b")], {}),
        ([generation("a"), '{"id": "b", "traceI'], {"last lines that are cut off": 1}),
        ([generation("a"), "oops", generation("b")], {"lines that are not JSON": 1}),
        (["oops", generation("a"), "", generation("b")], {"lines that are not JSON": 1}),
        ([generation("a"), 7, None, "null", [generation("b")]], {"records of another shape": 3}),
    ],
    ids=["whole", "the last is cut off", "one is broken", "the first is broken", "other values, and a list"],
)
def test_lines_are_read_one_by_one(tmp_path: Path, lines: list, skipped: dict):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    found = import_files([path], "langfuse")
    assert {c.id for c in found.calls} <= {"a", "b"}
    assert found.skipped == skipped


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("indent", [None, 2])
def test_gzip_byte_order_marks_and_indents_make_no_difference(tmp_path: Path, packed: bool, mark: bytes, indent):
    path = tmp_path / "x"
    content = mark + json.dumps([generation("a")], indent=indent).encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    assert len(import_files([path], None).calls) == 1


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "bomb.gz"
    monkeypatch.setattr(reading, "MAX_UNPACKED", 1 << 20)
    path.write_bytes(gzip.compress((json.dumps(generation()) + "\n").encode() * 10_000))
    with pytest.raises(ScepsyError, match="unpacks to more than"):
        import_files([path], None)
    monkeypatch.setattr(reading, "MAX_DOCUMENT", 1 << 16)
    path.write_bytes(gzip.compress(b" " * (1 << 20)))
    with pytest.raises(ScepsyError, match="is longer than"):
        import_files([path], None)


def test_missing_token_counts_are_the_mean_of_the_models_other_calls_or_told_from_the_texts(tmp_path: Path):
    path = tmp_path / "x.json"
    none = {"usageDetails": None}
    path.write_text(
        json.dumps(
            [
                generation("a", usageDetails={"input": 10, "output": 5}),
                generation("b", usageDetails={"input": 21, "output": 7}),
                generation("c", **none, input="x" * 999),
                generation("d", "writer", **none, input=[{"role": "user", "content": "x" * 41}], output="x" * 8),
                generation("e", "writer", level="ERROR", usageDetails=None),
            ]
        )
    )
    found = {c.id: (c.input_tokens, c.output_tokens, bool(c.estimated)) for c in import_files([path], None).calls}
    assert found["c"] == (16, 6, True)
    assert found["d"] == (11, 2, True)
    assert found["e"] == (0, 0, True), "failed: it does not count"


def test_native_files_are_merged_without_what_they_repeat_and_without_texts(tmp_path: Path):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl.gz"
    bounds = json.dumps({"execution": "e", "start": 0, "end": 9}) + "\n"
    one.write_text(native("e", id="a", prompt="secret", prefix=["ab", "cd"]) + native("late", start=5, end=6) + bounds)
    two.write_bytes(
        gzip.compress(
            (native("e", id="a") + native("e", id="b", start=2, end=3, parent="a") + native("bad", end=-1)).encode()
        )
    )
    found = import_files([one, two], None)
    assert [(c.execution, c.id, c.parents, c.prefix) for c in found.calls] == [
        ("e", "a", None, ("ab", "cd")),
        ("e", "b", ("a",), ()),
        ("late", None, None, ()),
    ]
    assert [e.end for e in found.executions] == [9]
    assert found.skipped == {"spans or calls that were there before": 1, "LLM calls that end before they begin": 1}
    assert "secret" not in repr(found)


def test_calls_without_an_id_may_be_alike_in_one_file_but_not_in_two(tmp_path: Path):
    path, copy = tmp_path / "one.jsonl", tmp_path / "copy.jsonl"
    path.write_text(native("e") * 3)
    copy.write_text(native("e") * 2)
    found = import_files([path, copy], None)
    assert len(found.calls) == 3, "a fan-out"
    assert found.skipped == {"spans or calls that were there before": 2}


def test_an_export_and_the_trace_that_was_made_of_it_are_the_same_calls(tmp_path: Path, export: Path):
    made = tmp_path / "made.jsonl"
    made.write_bytes(b"".join(encoded(call) for call in import_files([export], None).calls))
    found = import_files([export, made], None)
    assert len(found.calls) == 2
    assert found.skipped == {"spans or calls that were there before": 2}


def test_files_of_several_formats_go_into_one_trace(tmp_path: Path, export: Path):
    other = tmp_path / "other.jsonl"
    other.write_text(native("e"))
    found = import_files([export, other], None)
    assert [(f.format, f.calls, f.executions) for f in found.files] == [("langfuse", 2, 1), ("native", 1, 1)]
    assert [c.execution for c in found.calls] == ["e", "t1", "t1"], "by the first start of the execution"


def test_the_order_of_files_and_records_makes_no_difference(scepsy: Scepsy, project: Path, tmp_path: Path):
    items = [generation(f"{i}", trace=f"t{i % 3}", begin=(i * 7) % 50) for i in range(30)]
    written = []
    for number, order in enumerate((items, items[::-1])):
        paths = [tmp_path / f"{number}-{part}.json" for part in range(2)]
        for part, path in enumerate(paths):
            path.write_text(json.dumps(order[part::2]))
        out = tmp_path / f"{number}.jsonl"
        assert scepsy("trace", "import", *paths, "--workflow", "support", "--project", project, "-o", out).code == 0
        written.append(out.read_bytes())
    assert written[0] == written[1]
    starts = [json.loads(line)["start"] for line in written[0].splitlines() if b'"t0"' in line]
    assert starts == sorted(starts)


@pytest.mark.parametrize("name", NAMES)
def test_a_format_that_is_named_is_not_detected(tmp_path: Path, name: str):
    path = tmp_path / "x.json"
    path.write_text('{"hello": 1}')
    found = import_files([path], name)
    assert (found.calls, found.files[0].format) == ((), name)


KEYS = [
    "resourceSpans",
    "scopeSpans",
    "spans",
    "traceId",
    "spanId",
    "parentSpanId",
    "startTimeUnixNano",
    "endTimeUnixNano",
    "attributes",
    "key",
    "value",
    "stringValue",
    "intValue",
    "status",
    "code",
    "message",
    "events",
    "id",
    "trace_id",
    "type",
    "parentObservationId",
    "startTime",
    "endTime",
    "model",
    "usage",
    "usageDetails",
    "input",
    "output",
    "total",
    "level",
    "observations",
    "data",
    "runs",
    "run_type",
    "parent_run_id",
    "dotted_order",
    "start_time",
    "end_time",
    "extra",
    "metadata",
    "outputs",
    "generations",
    "child_runs",
    "requests",
    "t",
    "in",
    "out",
    "hash_ids",
    "block_size",
    "api_time",
    "duration_ms",
    "execution",
    "start",
    "end",
    "inputTokens",
    "outputTokens",
    "cachedTokens",
    "parent",
    "estimated",
    "prefix",
]
WORDS = [
    "GENERATION",
    "llm",
    "chat",
    "gen_ai.operation.name",
    "gen_ai.request.model",
    "gen_ai.usage.input_tokens",
    "subagent",
    "local",
    "t1",
    "a",
    "b",
    "2025-04-12T10:23:00Z",
    "2025-04-12T10:23:01",
    "1700000000000000000",
    "-5",
    "1e400",
    "ERROR",
    "�",
]
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(WORDS), st.sampled_from(KEYS), st.text(max_size=3)
)  # fmt: skip
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)),
    max_leaves=25,
)


def some(**fields) -> st.SearchStrategy:
    """An object of the right outer shape, each field of which may hold anything, but mostly does not."""
    return st.fixed_dictionaries(
        {
            key: st.integers(0, 9).flatmap(lambda n, v=value: anything if n == 9 else st.just(v))
            for key, value in fields.items()
        }
    )


observation = some(**generation(), parentObservationId="b", level="ERROR", statusMessage="x: y")
run = some(
    **{"id": "a", "trace_id": "t1", "run_type": "llm", "start_time": 1, "end_time": "2", "parent_run_id": "b"},
    **{"extra": {"metadata": {"ls_model_name": "m"}}, "prompt_tokens": 1, "completion_tokens": 2, "outputs": {}},
)
model = {"key": "gen_ai.request.model", "value": {"stringValue": "m"}}
span = some(
    **{"traceId": "t1", "spanId": "a", "startTimeUnixNano": "1", "endTimeUnixNano": 2, "parentSpanId": "b"},
    **{
        "attributes": [model, {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "3"}}],
        "status": {},
        "events": [],
    },
)
entry = some(**{"t": 1.5, "model": "m", "in": 64, "out": 2, "hash_ids": [1, 2], "api_time": 2, "type": "n", "ttft": 1})
shapes = st.one_of(
    st.lists(observation, min_size=1, max_size=4),
    st.fixed_dictionaries({"data": st.lists(observation, max_size=4)}),
    st.lists(run, min_size=1, max_size=4),
    st.lists(span, max_size=4).map(lambda s: {"resourceSpans": [{"scopeSpans": [{"spans": s}]}]}),
    st.fixed_dictionaries(
        {
            "requests": st.lists(
                st.one_of(entry, some(t=3, type="subagent", duration_ms=900, requests=[{"t": 0, "model": "m"}])),
                max_size=5,
            ),
            "block_size": st.one_of(st.just(64), anything),
        }
    ),
    st.lists(some(**json.loads(native(id="a", parent=["b"], estimated=["end"], prefix=["x"]))), min_size=1, max_size=4),
    anything,
)


@given(shapes, st.sampled_from([None, *NAMES]))
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_whatever_a_file_holds_there_is_a_trace_or_a_message(tmp_path: Path, content, format_: str | None):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    try:
        found = import_files([path], format_)
    except ScepsyError:
        return
    for call in found.calls:
        assert call.end >= call.start
        assert 0 <= call.cached_tokens <= call.input_tokens
        assert call.output_tokens >= 0
        assert isinstance(call, Call)
    if any(call.error is None for call in found.calls):
        # What is written can be read again.
        parse_trace([encoded(record) for record in (*found.executions, *found.calls)], "x")


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_bytes_of_a_file_there_is_a_message(tmp_path: Path, content: bytes):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(ScepsyError):
        import_files([path], None)
