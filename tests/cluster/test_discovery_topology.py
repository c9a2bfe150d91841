"""What nvidia-smi prints on nodes, and the NVLink domains that follow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.cluster.nvlink_topology import Links, read_topology
from scepsy.errors import ScepsyError

# As printed on a terminal: with tabs, an underlined heading, network cards, and a legend.
HGX = (
    "node: gpu-a\n"
    "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-a)\nGPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-b)\n"
    "  MIG 1g.10gb     Device  0: (UUID: MIG-5)\n"
    "\t\x1b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
    "GPU0\t X \tNV18\tPIX\t0-55,112-167\t0\t\tN/A\n"
    "GPU1\tNV18\t X \tSYS\t0-55,112-167\t0\t\tN/A\n"
    "NIC0\tPIX\tSYS\t X \t\t\t\t\n\n"
    "Legend:\n\n  X    = Self\n  NV#  = Connection traversing a bonded set of # NVLinks\n\nNIC Legend:\n\n  NIC0: mlx5_0\n"
)


def text(count: int, links: set[tuple[int, int]], listed: bool = True, header: str = "node: n") -> str:
    names = [f"GPU{i}" for i in range(count)]
    lines = [header] + [f"GPU {i}: X (UUID: GPU-u{i})" for i in range(count) if listed] + ["      " + "  ".join(names)]
    for i in range(count):
        cells = ["X" if i == j else "NV4" if (i, j) in links or (j, i) in links else "SYS" for j in range(count)]
        lines.append("  ".join([names[i], *cells, "0-15", "0", "N/A"]))
    return "\n".join(lines)


def whole(*members: int) -> set[tuple[int, int]]:
    return {(i, j) for i in members for j in members if i < j}


def test_the_output_of_nvidia_smi_is_understood_as_it_is() -> None:
    links = read_topology(HGX, "t")["gpu-a"]
    assert links == Links(("GPU-a", "GPU-b"), 2, ((0, 1),))
    assert links.domains(["GPU-b", "GPU-c", "GPU-a"]) == ((0, 2),)


@pytest.mark.parametrize("header", ["node: n", "node/n", "# node: n", "=== node/n ===", "Node: n:"])
def test_a_line_says_whose_gpus_follow(header: str) -> None:
    assert list(read_topology(text(2, whole(0, 1), header=header), "t")) == ["n"]


@pytest.mark.parametrize(
    ("count", "links", "groups", "cut"),
    [
        (4, whole(0, 1, 2, 3), ((0, 1, 2, 3),), False),
        (4, whole(0, 1) | whole(2, 3), ((0, 1), (2, 3)), False),
        (4, set(), (), False),
        (3, whole(0, 2), ((0, 2),), False),
        # A ring, and the hybrid cube mesh of eight V100: sets of GPUs of which each pair has a link.
        (4, {(0, 1), (1, 2), (2, 3), (0, 3)}, ((0, 1), (2, 3)), True),
        (8, whole(0, 1, 2, 3) | whole(4, 5, 6, 7) | {(i, i + 4) for i in range(4)}, ((0, 1, 2, 3), (4, 5, 6, 7)), True),
    ],
    ids=["a switch", "bridges", "none", "one bridge", "a ring", "a cube mesh"],
)
def test_domains_are_sets_in_which_each_pair_has_a_link(
    count: int, links: set[tuple[int, int]], groups: tuple[tuple[int, ...], ...], cut: bool
) -> None:
    found = read_topology(text(count, links), "t")["n"]
    assert (found.groups, found.cut) == (groups, cut)


@given(st.integers(1, 9), st.data())
def test_no_domain_ever_has_a_pair_without_a_link_and_no_gpu_is_in_two(count: int, data: st.DataObject) -> None:
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    links = data.draw(st.sets(st.sampled_from(pairs))) if pairs else set()
    found = read_topology(text(count, links), "t")["n"]
    assert all(whole(*group) <= links for group in found.groups)
    members = [i for group in found.groups for i in group]
    assert len(members) == len(set(members))


@pytest.mark.parametrize(
    ("count", "links", "gpus", "domains"),
    [
        (2, whole(0, 1), ["x", "y"], ((0, 1),)),
        (2, set(), ["x", "y", "z"], ()),
        (4, whole(0, 1) | whole(2, 3), ["x", "y", "z", "w"], None),
        (2, whole(0, 1), ["x", "y", "z"], None),
    ],
    ids=["all are connected", "none is", "pairs: which?", "another number of GPUs"],
)
def test_without_uuids_a_matrix_is_of_use_where_it_makes_no_difference(
    count: int, links: set[tuple[int, int]], gpus: list[str], domains: tuple[tuple[int, ...], ...] | None
) -> None:
    assert read_topology(text(count, links, listed=False), "t")["n"].domains(gpus) == domains


def test_gpus_that_the_file_does_not_know_or_that_are_gone_are_in_no_domain() -> None:
    links = read_topology(text(4, whole(0, 1) | whole(2, 3)), "t")["n"]
    assert links.domains(["GPU-u3", "GPU-new", "GPU-u2", "GPU-u0"]) == ((0, 2),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "t has no line `node: NAME`"),
        ("GPU0 GPU1\n", "t:1: expected a line `node: NAME` first"),
        ("node: a\n", "t: node a has no matrix"),
        (text(2, set()) + "\nnode: n\n", "t:7: node n appears twice"),
        (text(2, set()).replace("GPU 1: X (UUID: GPU-u1)\n", ""), "nvidia-smi -L lists 1 GPUs, nvidia-smi topo -m has 2"),
        (text(2, set(), listed=False).replace("GPU1  SYS", "GPU2  SYS"), "lacks a row or a column of a GPU, counted from 0"),
        ("node: n\nGPU0 GPU1\nGPU0 X\n", "t: node n, line 3: the row has fewer columns than the header"),
        ("node: n\nGPU0 GPU1\nGPU0 X NV4\nGPU1 SYS X\n", "GPU0 has a link to GPU1, but not the reverse"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_an_error_with_its_place(content: str, said: str) -> None:
    with pytest.raises(ScepsyError) as raised:
        read_topology(content, "t")
    assert said in raised.value.message
    assert raised.value.hint
