"""Tokens: where they are read, which are valid, where they may be sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from scepsy.remote_api.credentials import CredentialError, check_encrypted, is_loopback, may_send_token, read_token


def test_the_variable_comes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("of-the-file\n")
    assert read_token({"T": "of-the-variable", "F": str(file)}, "T", "F") == "of-the-variable"
    assert read_token({"T": "", "F": str(file)}, "T", "F") == "of-the-file"
    assert read_token({"F": str(file)}, "T") is None
    assert read_token({}, "T", "F") is None


def test_an_empty_file_has_no_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("\n")
    assert read_token({"F": str(file)}, "T", "F") is None


@pytest.mark.parametrize("token", ["a b", "a\nX-Other: 1", "a\tb", "a\x00b", "ä", " a"])
def test_tokens_with_whitespace_or_non_printable_characters_are_refused(token: str, tmp_path: Path) -> None:
    with pytest.raises(CredentialError) as raised:
        read_token({"T": token}, "T")
    assert raised.value.message == "invalid token in T: contains whitespace or non-printable characters"
    file = tmp_path / "token"
    file.write_text(f"x{token}x", encoding="utf-8")
    with pytest.raises(CredentialError) as raised:
        read_token({"F": str(file)}, "T", "F")
    assert raised.value.message == "invalid token in the file of F: contains whitespace or non-printable characters"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialError) as raised:
        read_token({"F": "/nowhere"}, "T", "F")
    assert raised.value.message == "cannot read the token file /nowhere: No such file or directory"
    assert raised.value.hint == "fix or unset F"
    file = tmp_path / "token"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(CredentialError, match="not UTF-8 text"):
        read_token({"F": str(file)}, "T", "F")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True), ("LOCALHOST", True), ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True),
        ("[::1]", True), ("localhost.example.com", False), ("127.0.0.1.example.com", False), ("10.0.0.1", False),
        ("127.1", False), ("0.0.0.0", False), ("::", False), ("prometheus.monitoring.svc", False), ("", False),
    ],
)  # fmt: skip
def test_loopback_hosts(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
    assert may_send_token("http", host) == loopback
    assert may_send_token("https", host)


def test_a_token_is_not_sent_over_plain_http_to_another_machine() -> None:
    check_encrypted("https", "argo.example.com")
    check_encrypted("http", "127.0.0.1")
    with pytest.raises(CredentialError) as raised:
        check_encrypted("http", "argo.example.com")
    assert raised.value.message == "refusing to send the token to argo.example.com over plain HTTP"
    assert raised.value.hint == "use https://, or kubectl port-forward and localhost"
