"""Overrides replace single templates, and can do nothing but render that one object."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

import pytest
from tests.manifests.manifest_values import cluster, plan, project
from tests.operations import peak_bytes

from scepsy.documents import DocumentError
from scepsy.documents.yaml_source import SourceFile, parse
from scepsy.manifests import Backend, Server, gateway_config, render

PDB = "poddisruptionbudget.yaml.j2"


def shipped(name: str) -> str:
    return importlib.resources.files("scepsy.templates").joinpath(name).read_text()


def rendered(overrides: Path | None) -> dict[str, Any]:
    files = render(plan(), cluster(), project(), overrides)
    return {name: parse(SourceFile(name, data))[0].root.plain() for name, data in files.items()}


def failure(tmp_path: Path, text: str, name: str = PDB) -> str:
    (tmp_path / name).write_text(text)
    with pytest.raises(DocumentError) as caught:
        render(plan(), cluster(), project(), tmp_path)
    return str(caught.value)


def test_a_template_of_the_same_name_replaces_the_shipped_one_and_no_other(tmp_path: Path) -> None:
    (tmp_path / PDB).write_text(shipped(PDB).replace("minAvailable: {{ min_available }}", "minAvailable: 7"))
    (tmp_path / ".gitkeep").write_text("")
    before, after = rendered(None), rendered(tmp_path)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.startswith("poddisruptionbudget-")}
    assert after["poddisruptionbudget-gateway.yaml"]["spec"]["minAvailable"] == 7


def test_a_changed_claim_gets_a_new_name_that_its_pods_use(tmp_path: Path) -> None:
    name = "resourceclaim.yaml.j2"
    (tmp_path / name).write_text(
        shipped(name).replace("allocationMode:", "adminAccess: false\n        allocationMode:")
    )
    before, after = rendered(None), rendered(tmp_path)
    claims = {name for name in after if name.startswith("resourceclaim-")}
    assert not claims & set(before)
    used = after["deployment-judge-0.yaml"]["spec"]["template"]["spec"]["resourceClaims"][0]["resourceClaimName"]
    assert f"resourceclaim-{used}.yaml" in claims


def test_the_gateways_configuration_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "haproxy.cfg.j2").write_text(
        shipped("haproxy.cfg.j2").replace("balance leastconn", "balance roundrobin")
    )
    [config] = [item for name, item in rendered(tmp_path).items() if name.startswith("configmap-")]
    assert "balance roundrobin" in config["data"]["haproxy.cfg"]


def test_a_name_that_is_no_templates_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    message = failure(tmp_path, "", "deployment-engin.yaml.j2")
    assert "deployment-engin.yaml.j2:1:1: no shipped template of this name" in message
    assert 'did you mean "deployment-engine.yaml.j2"?' in message


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / PDB).symlink_to("/etc/passwd")
    with pytest.raises(DocumentError, match="is a symbolic link"):
        render(plan(), cluster(), project(), tmp_path)


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="no such directory"):
        render(plan(), cluster(), project(), tmp_path / "gone")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: {{ nothing }}\n", 2, "'nothing' is undefined"),
        ("a: 1\nb: 2\nc: {{ name.first }}\n", 3, "has no attribute 'first'"),
        ("a: 1\n{% if %}\n", 2, "Expected an expression"),
        ("a: 1\nb: {{ name | nofilter }}\n", 2, 'no filter "nofilter"'),
    ],
)
def test_an_error_names_file_and_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    found = failure(tmp_path, text)
    assert f"{tmp_path.name}/{PDB}:{line}:1: the template fails" in found
    assert message in found


@pytest.mark.parametrize(
    "expression",
    [
        "{{ name.__class__ }}",
        "{{ name['__class__'] }}",
        "{{ labels.items }}",
        "{{ selector.__class__.__mro__ }}",
        "{{ name.upper() }}",
        "{{ range(10) }}",
        "{{ cycler('a').next() }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{% macro m() %}{% endmacro %}",
        "{% set x = 1 %}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ 'a' * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ name | center(1000000000) }}",
        "{{ name | attr('__class__') }}",
        "{% filter upper %}x{% endfilter %}",
        "{% autoescape true %}{% endautoescape %}",
    ],
)
def test_a_template_reaches_no_python_and_cannot_compute(tmp_path: Path, expression: str) -> None:
    messages: list[str] = []
    peak = peak_bytes(lambda: messages.append(failure(tmp_path, shipped(PDB) + f"# {expression}\n")))
    assert "the template fails" in messages[0]
    assert peak < 16 * 2**20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "".join(f"{{% for a{i} in labels %}}" for i in range(16)) + "".join("{% endfor %}" for _ in range(16)),
            "repeat more than",
        ),
        ("{% for a in labels %}{% for b in labels %}" + "#" * 100_000 + "{% endfor %}{% endfor %}", "grows beyond"),
        ("# {{ " + " ~ ".join(["name", repr("x" * 100)] * 700) + " }}", "'~' makes a string of more than"),
        ("{% for a in labels %}" * 30 + "{% endfor %}" * 30, "the template fails"),
        ("# {{ " + "(" * 5000 + "name" + ")" * 5000 + " }}", "the template fails"),
    ],
)
def test_a_template_that_grows_without_end_is_stopped(tmp_path: Path, text: str, message: str) -> None:
    messages: list[str] = []
    peak = peak_bytes(lambda: messages.append(failure(tmp_path, text + "\n")))
    assert message in messages[0]
    assert peak < 256 * 2**20


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: PodDisruptionBudget", "kind: Secret", "kind is 'Secret', expected 'PodDisruptionBudget'"),
        ("apiVersion: policy/v1", "apiVersion: v1", "apiVersion is 'v1', expected 'policy/v1'"),
        ("name: {{ name }}", "name: other", "metadata.name is 'other'"),
        ("namespace: {{ namespace }}", "namespace: kube-system", "metadata.namespace is 'kube-system'"),
        ("spec:", "---\napiVersion: v1\nkind: Secret\n---\nspec:", "rendered 3 documents"),
        ("spec:", "metadata:", 'the key "metadata" is given twice'),
        ("spec:", "spec: [", "not valid YAML"),
    ],
)
def test_a_template_renders_exactly_its_own_object(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert message in failure(tmp_path, shipped(PDB).replace(old, new, 1))


def test_an_override_of_the_gateways_configuration_cannot_be_given_text_that_ends_a_word() -> None:
    for address in ("1.2.3.4:1 check\n    lua-load x", "a b", "a#b", "a\\ b", "a'b", 'a"b', "%[env(X)]", "${X}"):
        with pytest.raises(DocumentError, match="is no plain token"):
            gateway_config([Backend("m", (Server("s", address, 1),))], max_body=1024)
