"""No function of the compiler is so long that it must be scrolled, unless it says why."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 60
"""Lines of a function, from `def` to its last line, docstring included."""
REASON = "# Long because: "
"""The comment that allows a longer function: on the line above it, or on the first line after its docstring."""


def too_long(source: str) -> list[tuple[str, int]]:
    """Return the functions of a module that are too long and do not say why, and how long they are."""
    lines = source.splitlines()
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        inside = lines[(body or node.body)[0].lineno - 2]
        if length > LONGEST and REASON not in (lines[first - 2] if first > 1 else "") and REASON not in inside:
            found.append((node.name, length))
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f():\n" + "    x = 1\n" * (LONGEST - 1), []),
        ("def f():\n" + "    x = 1\n" * LONGEST, [("f", LONGEST + 1)]),
        (f"{REASON}one table\ndef f():\n" + "    x = 1\n" * LONGEST, []),
        ('def f():\n    """What."""\n' + f"    {REASON}one table\n" + "    x = 1\n" * LONGEST, []),
        ("async def f():\n" + "    x = 1\n" * LONGEST, [("f", LONGEST + 1)]),
    ],
    ids=["as long as allowed", "too long", "with a reason above", "with a reason inside", "a coroutine"],
)
def test_a_long_function_is_found_unless_it_says_why(source: str, found: list[tuple[str, int]]) -> None:
    assert too_long(source) == found


def test_no_function_of_the_compiler_is_too_long() -> None:
    files = sorted((ROOT / "compiler").rglob("*.py"))
    assert {str(file.relative_to(ROOT)): long for file in files if (long := too_long(file.read_text()))} == {}
