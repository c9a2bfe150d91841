"""Short names in place of prefix hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def renumbered(prefixes: Mapping[int, tuple[str, ...]]) -> dict[int, tuple[str, ...]]:
    """Return prefixes with short names in place of hashes: calls share a beginning exactly if they did before.

    Hashes are chained, so each name stands for the whole beginning. After the first block that no other call has, no
    further block is shared, so those need no names.

    Args:
        prefixes: per call the hashes of its leading blocks.
    """
    # Two passes: how many calls go through each beginning; then their names, in order of appearance.
    tree: dict[tuple[int, str], int] = {}
    through: Counter[int] = Counter()
    paths: dict[int, list[int]] = {}
    for key, blocks in prefixes.items():
        node = 0
        paths[key] = []
        for block in blocks:
            node = tree.setdefault((node, block), len(tree) + 1)
            through[node] += 1
            paths[key].append(node)
    names: dict[int, str] = {}
    renamed: dict[int, tuple[str, ...]] = {}
    for key, path in paths.items():
        written: list[str] = []
        unique = False
        for node in path:
            # "-" is the same name for all, but comes after a name that no other call has.
            written.append("-" if unique else names.setdefault(node, _short(len(names))))
            unique = unique or through[node] == 1
        renamed[key] = tuple(written)
    return renamed


def _short(number: int) -> str:
    text = ""
    while True:
        text = _DIGITS[number % 36] + text
        number //= 36
        if not number:
            return text
