"""Paths that documents name stay inside the repository."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from scepsy.repository import PathEscapes, contained, plan_changes


@pytest.fixture
def house(tmp_path: Path) -> Path:
    house = tmp_path / "house"
    (house / "workflows").mkdir(parents=True)
    (house / "traces").mkdir()
    (tmp_path / "secret").write_text("")
    return house


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("../traces/a.jsonl", "traces/a.jsonl"),
        ("./x/../y.yaml", "workflows/y.yaml"),
        ("..", "."),
        ("a//b/.", "workflows/a/b"),
        ("...", "workflows/..."),
        (".gitignore", "workflows/.gitignore"),
    ],
)
def test_a_path_is_relative_to_its_document_and_may_climb_within_the_root(house, path, expected):
    assert contained(house, path, house / "workflows") == house / expected
    assert contained(house, Path(path), Path("workflows")) == house / expected


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/etc/passwd", "absolute"),
        ("../../secret", "leads out"),
        ("../../house/traces", "leads out"),  # it comes back, but only where the clone has this name
        ("x/../../..", "leads out"),
        ("../.git/config", r"inside \.git"),
        ("../.GIT/config", r"inside \.GIT"),
        ("../sub/.Git/hooks/x", r"inside \.Git"),
        ("a\0b", "NUL"),
        ("x" * 300, "too long"),
        ("\ud800", "cannot be followed"),
    ],
)
def test_a_path_that_leaves_the_repository_or_enters_git_is_refused(house, path, why):
    with pytest.raises(PathEscapes, match=why) as caught:
        contained(house, path, house / "workflows")
    assert caught.value.hint


def test_a_base_outside_the_root_is_refused(house, tmp_path):
    with pytest.raises(PathEscapes, match="outside the repository"):
        contained(house, "x", tmp_path)


def test_symlinks_that_stay_inside_are_followed(house):
    (house / "workflows" / "near").symlink_to("../traces")
    (house / "far").symlink_to(house / "traces")

    assert contained(house, "near/a", house / "workflows") == house / "traces" / "a"
    assert contained(house, "near/../scepsy.yaml", house / "workflows") == house / "scepsy.yaml"
    assert contained(house, "far/a", house) == house / "traces" / "a"


@pytest.mark.parametrize("target", ["../secret", "../house/traces", "/etc", ".git/hooks"])
def test_symlinks_that_lead_out_or_into_git_are_refused(house, target):
    (house / "link").symlink_to(target)

    with pytest.raises(PathEscapes):
        contained(house, "link/x", house)


def test_a_symlink_that_leaves_and_comes_back_is_refused(house, tmp_path):
    (tmp_path / "outside").symlink_to(house / "traces")
    (house / "link").symlink_to(tmp_path / "outside")

    with pytest.raises(PathEscapes, match="leads out of the repository"):
        contained(house, "link", house)


def test_a_loop_of_symlinks_is_refused(house):
    (house / "a").symlink_to("b")
    (house / "b").symlink_to("a")

    with pytest.raises(PathEscapes, match="loop"):
        contained(house, "a", house)


def test_a_root_that_is_named_through_a_symlink_is_the_same_root(house, tmp_path):
    (tmp_path / "alias").symlink_to(house)

    assert contained(tmp_path / "alias", "x", tmp_path / "alias" / "traces") == house / "traces" / "x"


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", ".git/config", "a/.GIT/x", "", "a\0b"])
def test_an_output_with_such_a_name_is_refused_whether_wanted_or_recorded(house, path):
    with pytest.raises(PathEscapes):
        plan_changes(house, {PurePosixPath(path): b""}, {})
    with pytest.raises(PathEscapes):
        plan_changes(house, {}, {PurePosixPath(path): "0" * 64})


@pytest.mark.parametrize("link", ["rendered", "rendered/prod", "rendered/prod/a.yaml"])
def test_an_output_through_a_symlink_is_refused_even_when_it_stays_inside(house, link):
    (house / link).parent.mkdir(parents=True, exist_ok=True)
    (house / link).symlink_to(house / "traces")

    with pytest.raises(PathEscapes, match="symlink"):
        plan_changes(house, {PurePosixPath("rendered/prod/a.yaml"): b""}, {})
