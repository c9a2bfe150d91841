"""Every problem of a document is reported where it stands, and says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scepsy.documents import Cluster, DocumentError, Profile, Project, Workflow, load_file
from scepsy.documents.diagnostics import Diagnostic, Position
from scepsy.documents.model import Document

WORKFLOW = """\
apiVersion: scepsy.dev/v1alpha1
kind: Workflow
metadata: {name: rag}
spec:
  target: {rate: 4/s}
  llms:
    - {name: generator, model: Qwen/Qwen3-8B}
  demand:
    statistics:
      llms:
        - {llm: generator, calls: 1, inputTokens: {mean: 100}, outputTokens: {mean: 10}}
"""


def problems(tmp_path: Path, text: str | bytes, kind: type[Document] = Workflow) -> list[str]:
    """Load a file of one kind, and return `line:column message | hint` of each problem."""
    path = tmp_path / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        _, _, found = load_file(path, "file.yaml", kind)
    except DocumentError as error:
        found = list(error.diagnostics)
    return [
        f"{d.position.line}:{d.position.column} {d.message}" + (f" | {d.hint}" if d.hint else "") for d in sorted(found)
    ]


def test_a_correct_workflow_has_no_problems(tmp_path: Path) -> None:
    assert problems(tmp_path, WORKFLOW) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("target:", "targte:", '5:3 unknown key "targte" | did you mean "target"?'),
        ("rate: 4/s", "rate: 4", "5:12 4 is not a rate: write a number per unit of time, such as 4/s, 30/min or 100/h"),
        ("rate: 4/s", "rate: 0/s", "5:12 a rate must be greater than zero"),
        ("rate: 4/s", "rate: 8s", '5:12 "8s" is not a rate: write a number per unit of time, such as'),
        ("rate: 4/s}", "rate: 4/s}\n  priority: -1", "6:3 expected greater than 0, got the number -1"),
        ("rate: 4/s}", "rate: 4/s}\n  objective: {p95: 8}", "6:15 8 is not a duration: write a number and a unit"),
        ("name: rag", "name: Rag", "3:12 'Rag' is not a Kubernetes name"),
        ("name: rag", "name: " + "x" * 41, "3:12 a Kubernetes name (lower-case"),
        ("name: generator, m", "name: generator, tensorParallel: [3], m", "7:42 the number 3 is not allowed here"),
        ("calls: 1,", "calls: yes,", '11:28 expected a valid number, got "yes"'),
        ("calls: 1,", "calls: 1, cachedTokens: {mean: 101},", "11:11 cachedTokens.mean is above inputTokens.mean"),
        ("calls: 1,", "calls: 1, fanOut: 2,", "11:11 fanOut must lie between 1 and the number of calls"),
        ("{mean: 100}", "{mean: 100, max: 9}", "11:38 max 9 is below mean 100"),
        (
            "    statistics:",
            "    traces: a.jsonl\n    statistics:",
            "8:3 give exactly one of traces, summary and statistics",
        ),
        ("    statistics:", "    traces: /etc/passwd\n    x:", "9:5 '/etc/passwd' is not a relative path"),
        ("kind: Workflow", "kind: Cluster", '2:1 kind is "Cluster", expected "Workflow" | this directory holds'),
        ("v1alpha1", "v1", '1:1 apiVersion is "scepsy.dev/v1", expected "scepsy.dev/v1alpha1"'),
        ("kind:", "Kind:", '2:1 unknown key "Kind" | did you mean "kind"?'),
        ("metadata: {name: rag}", "metadata: rag", '3:1 expected a mapping (key: value), got "rag"'),
        ("  llms:\n    - {name: generator, model: Qwen/Qwen3-8B}\n", "  llms: []\n", "6:3 the list is empty"),
    ],
)
def test_a_mistake_is_shown_where_it_stands(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in WORKFLOW
    found = problems(tmp_path, WORKFLOW.replace(old, new, 1))
    assert any(problem.startswith(expected) for problem in found), found


def test_a_model_name_cannot_smuggle_anything_in(tmp_path: Path) -> None:
    found = problems(tmp_path, WORKFLOW.replace("Qwen/Qwen3-8B", r'"x\"}]}\n---\nkind: Secret"'))
    assert found == ["7:25 'x\"}]}\\n---\\nkind: Secret' is not a model id such as Qwen/Qwen3-8B"]


def test_all_problems_of_a_file_are_reported_in_one_run_in_file_order(tmp_path: Path) -> None:
    text = WORKFLOW.replace("4/s", "4").replace("model:", "modle:").replace("calls: 1", "calls: 0")
    assert [p.split(" ")[0] for p in problems(tmp_path, text)] == ["5:12", "7:7", "7:25", "11:28"]


def test_several_documents_in_one_file_are_all_read(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(WORKFLOW + "---\n" + WORKFLOW.replace("name: rag", "name: other") + "---\n")
    _, loaded, found = load_file(path, "all.yaml", Workflow)
    assert [item.document.metadata.name for item in loaded] == ["rag", "other"]
    assert found == []


def test_the_second_document_of_a_file_keeps_its_own_line_numbers(tmp_path: Path) -> None:
    assert problems(tmp_path, WORKFLOW + "---\n" + WORKFLOW.replace("4/s", "4"))[0].startswith("17:12 4 is not a rate")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"kind: \xff", "1:7 the file is not UTF-8: byte 0xff | save it as UTF-8"),
        (b"a: [1, 2\nb: 3", "2:2 not valid YAML"),
        (b"a: \x01", "1:4 the character '\\x01' is not allowed in YAML | remove it"),
        (b"a: 1\na: 2", '2:1 the key "a" is given twice | first on line 1'),
        (b"a: !!python/object:os.system x", '1:4 the tag "tag:yaml.org,2002:python/object:os.system" is not supported'),
        (b"a: *b", '1:4 unknown alias "*b"'),
        (b"a: &a {b: 1}\nc: {<<: *a}", "2:5 merge keys (<<) are not supported | write the keys out"),
        (b"[" * 100 + b"]" * 100, "1:62 nested more than 60 levels deep"),
        (b"", "1:1 the file is empty; expected a Workflow document"),
        (b"- a\n", "1:1 expected a Workflow document with apiVersion, kind, metadata and spec"),
    ],
)
def test_what_is_no_yaml_or_not_allowed_in_it_is_refused(tmp_path: Path, text: bytes, expected: str) -> None:
    found = problems(tmp_path, text)
    assert found, text
    assert found[0].startswith(expected), found


def test_a_yaml_alias_bomb_is_refused_before_it_expands(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert problems(tmp_path, "\n".join(lines))[0].split(" ", 1)[1].startswith("the file expands to more than 200,000")


def test_a_deep_nest_that_would_exhaust_the_stack_is_refused(tmp_path: Path) -> None:
    assert "nested more than 60 levels" in problems(tmp_path, "[" * 200_000)[0]


def test_a_file_of_50_mb_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    with path.open("wb") as stream:
        stream.truncate(50_000_000)
    with pytest.raises(DocumentError, match=r"the file has 50.0 MB; at most 4.2 MB are read"):
        load_file(path, "file.yaml", Workflow)


def test_an_alias_of_modest_size_works(tmp_path: Path) -> None:
    text = WORKFLOW.replace("inputTokens: {mean: 100}", "inputTokens: &t {mean: 100}").replace(
        "outputTokens: {mean: 10}", "outputTokens: *t"
    )
    assert problems(tmp_path, text) == []


def test_the_offending_line_is_shown_with_a_caret(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(WORKFLOW.replace("target:", "targte:"))
    _, _, found = load_file(path, "w.yaml", Workflow)
    assert str(sorted(found)[1]) == (
        'w.yaml:5:3: unknown key "targte"\n  5 |   targte: {rate: 4/s}\n    |   ^\n  did you mean "target"?'
    )


def test_what_is_no_file_is_said_to_be_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for name, problem in (
        ("pipe.yaml", "is not a regular file"),
        ("folder.yaml", "is a directory"),
        ("gone.yaml", "no such file"),
    ):
        with pytest.raises(DocumentError, match=f"^{name}:1:1: {problem}$"):
            load_file(tmp_path / name, name, Workflow)


LONG = "".join(f"{n:03}." for n in range(100))


@pytest.mark.parametrize(
    ("text", "column", "shown"),
    [
        ("short: x", 8, ["  7 | short: x", "    |        ^"]),
        (LONG, 1, [f"  7 | {LONG[:72]}…", "    | ^"]),
        (LONG, 201, [f"  7 | …{LONG[164:236]}…", "    | " + " " * 37 + "^"]),
        (LONG, 400, [f"  7 | …{LONG[328:]}", "    | " + " " * 72 + "^"]),
        (LONG, 500, [f"  7 | …{LONG[328:]}"]),
        ("a\x1b[b: x", 5, ["  7 | a\\x1b[b: x", "    |        ^"]),
    ],
)
def test_of_a_long_line_what_is_around_the_caret_is_shown(text: str, column: int, shown: list[str]) -> None:
    lines = str(Diagnostic(Position("w.yaml", 7, column, text), "wrong")).splitlines()
    assert lines == [f"w.yaml:7:{column}: wrong", *shown]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (Project, "spec: {namespce: a}", 'unknown key "namespce" | did you mean "namespace"?'),
        (Project, "spec: {engine: {image: 'a b'}}", "'a b' is not a container image"),
        (Project, "spec: {paths: {plans: ~/x}}", "'~/x' is not a relative path"),
        (Cluster, "spec: {nodes: [{name: n, product: P, gpus: [{uuid: GPU-1, memory: 80GiB}]}]}", "(Kubernetes writes 80Gi)"),
        (Cluster, "spec: {sharing: mps, nodes: []}", '"mps" is not allowed here | did you mean "dra-mps"?'),
        (Cluster, "spec: {kubernetes: '1.30', nodes: []}", '"1.30" is not allowed here'),
        (Profile, "spec: {series: [{tp: 1, mix: {input: 1, output: 1}, points: [{concurrency: 2, latency: 1s, ttft: 1s},"
                  " {concurrency: 1, latency: 1s, ttft: 1s}]}]}", "the points must have strictly rising concurrency"),
        (Profile, "spec: {series: [{points: [{concurrency: 3200000000}]}]}", "less than or equal to 1000000"),
        (Profile, "spec: {series: [{points: [{concurrency: 1, interval: 1e200}]}]}", "less than or equal to 10"),
        (Profile, "spec: {provenance: {tool: t, date: '20260131'}}", "'20260131' is not a day such as 2026-01-31"),
        (Profile, "spec: {series: [{tp: 1, share: 0.25, mix: {input: 1, output: 1}, points: []}]}", "0.25 is not a share"),
    ],
)  # fmt: skip
def test_other_kinds_explain_their_mistakes_too(tmp_path: Path, kind: type[Document], text: str, expected: str) -> None:
    header = f"apiVersion: scepsy.dev/v1alpha1\nkind: {kind.__name__}\nmetadata: {{name: x}}\n"
    found = problems(tmp_path, header + text, kind)
    assert any(expected in problem for problem in found), found


def test_a_key_with_a_line_break_stays_in_its_line(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text('"x\\n::add-mask::y": 1\n' + WORKFLOW)
    _, _, found = load_file(path, "file.yaml", Workflow)
    printed = str(DocumentError(found))
    assert r"unknown key" in printed
    assert not any(line.startswith("::") for line in printed.splitlines())
