"""The example profiles come from the real tool, byte for byte; only where it is installed.

python -m pytest tests/profiling/estimating      in an environment with scepsy[estimate]
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from tests.conftest import Scepsy

EXAMPLES = Path(__file__).parents[3] / "examples" / "profiles"

pytest.importorskip("aiconfigurator_core", reason="needs the extra: pip install 'scepsy[estimate]', 600 MB")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_command_in_an_example_profile_gives_its_bytes(path: Path, scepsy: Scepsy, tmp_path: Path) -> None:
    line = next(line for line in path.read_text().splitlines() if line.startswith("# Regenerate with: "))
    words = shlex.split(line.removeprefix("# Regenerate with: "))
    assert words[0] == "scepsy"
    ran = scepsy(*words[1:], "-o", tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_what_cannot_be_trusted_is_not_estimated(scepsy: Scepsy, tmp_path: Path) -> None:
    for model in ("Qwen/Qwen3-30B-A3B", "nvidia/Llama-3.1-70B-Instruct-FP8"):
        ran = scepsy("profile", "estimate", model, "--product", "NVIDIA-H200", "-o", tmp_path)
        assert ran.code == 1
        assert "cannot be estimated" in ran.err


def test_a_model_that_is_not_known_is_compared_with_those_that_are(scepsy: Scepsy, tmp_path: Path) -> None:
    ran = scepsy("profile", "estimate", "Qwen/Qwen3-8", "--product", "NVIDIA-H200", "-o", tmp_path)
    assert 'did you mean "Qwen/Qwen3-8B"?' in ran.err
