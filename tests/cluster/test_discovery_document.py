"""The Cluster document that is kept: what the cluster contradicts changes, everything else stays, byte for byte."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cluster.kubernetes_api import live_of

from scepsy.cluster.discovery import LiveCluster, LiveGpu, LiveNode, Trouble
from scepsy.cluster.document import Discovered, fresh, merged
from scepsy.cluster.yaml_layout import checked, rewritten
from scepsy.documents import Cluster, DocumentError
from scepsy.documents.loading import validate
from scepsy.documents.yaml_source import SourceFile, parse
from scepsy.errors import ScepsyError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/clusters"
GIB = 2**30
H100 = "NVIDIA-H100-80GB-HBM3"


def gpu(name: str, memory: int = 80, sick: Trouble | None = None) -> LiveGpu:
    return LiveGpu(f"GPU-{name}", memory * GIB, H100, sick)


def node(name: str, *gpus: LiveGpu | str, **changes: object) -> LiveNode:
    made = tuple(gpu(g) if isinstance(g, str) else g for g in gpus)
    return LiveNode(name, H100, made, **changes)  # type: ignore[arg-type]


def cluster(*nodes: LiveNode, version: str = "1.36", **changes: object) -> LiveCluster:
    return LiveCluster(version, "gpu.nvidia.com", nodes, **changes)  # type: ignore[arg-type]


def documents(text: str) -> list[Cluster]:
    return [validate(source, Cluster) for source in parse(SourceFile("c.yaml", text.encode()))]


def discovered(text: str, live: LiveCluster, number: int = 0, **topology: object) -> tuple[str, Discovered]:
    """The text after `discover --write`, and what is said of it."""
    file = SourceFile("c.yaml", text.encode())
    before = documents(text)[number]
    found = merged(before, live, topology)  # type: ignore[arg-type]
    return rewritten(file, number, before, found.cluster).decode(), found


HEADER = """apiVersion: scepsy.dev/v1alpha1
kind: Cluster
metadata: {name: prod}
"""

BY_HAND = """# Ours.
apiVersion: scepsy.dev/v1alpha1
kind: Cluster   # this kind
metadata: {name: prod}

spec:
  sharing:   dra-mps      # see the ticket
  kubernetes: '1.36'
  nodes:
    # The old rack.
    - name: gpu-a
      product: NVIDIA-H100-80GB-HBM3
      gpus:
        - {uuid: GPU-a0, memory: 80Gi}
        # Swapped in May.
        - { memory: 80Gi, uuid: GPU-a1 }   # noisy fan
        - uuid: GPU-a2
          memory: 80Gi
        - {uuid: GPU-a3, memory: 80Gi}
      reserved: [3, 1]   # 3 is for profiling
      nvlinkDomains: [[0, 1],   # upper
                      [2, 3]]   # lower
    # The new rack.
    - {name: gpu-b, product: NVIDIA-H100-80GB-HBM3, gpus: [{uuid: GPU-b0, memory: 80Gi}]}   # one card
"""


def test_what_agrees_with_the_cluster_is_left_as_it_is_byte_for_byte() -> None:
    live = cluster(node("gpu-b", "b0"), node("gpu-a", "a3", "a1", "a2", "a0"))
    text, found = discovered(BY_HAND, live)
    assert text == BY_HAND
    assert found.changes == ()


def test_a_gpu_that_is_gone_goes_and_indices_still_mean_the_same_gpus() -> None:
    text, found = discovered(BY_HAND, cluster(node("gpu-a", "a0", "a2", "a3"), node("gpu-b", "b0")))
    assert text == BY_HAND.replace("        - { memory: 80Gi, uuid: GPU-a1 }   # noisy fan\n", "").replace(
        "[3, 1]", "[2]"
    ).replace("[[0, 1],", "[[0],").replace("[2, 3]]", "[1, 2]]")
    assert found.changes == ("gpu-a: GPU-a1 is gone (index 1, was reserved and in NVLink domain [[0, 1]])",)


def test_new_gpus_and_nodes_come_last_in_the_layout_of_their_neighbours() -> None:
    live = cluster(
        node("gpu-a", "a0", "a1", "a2", "a3", "a4"), node("gpu-b", "b0", "b1"), node("gpu-c", gpu("c0", 40), "c1")
    )
    text, found = discovered(BY_HAND, live)
    assert (
        text
        == BY_HAND.replace(
            "        - {uuid: GPU-a3, memory: 80Gi}\n",
            "        - {uuid: GPU-a3, memory: 80Gi}\n        - {uuid: GPU-a4, memory: 80Gi}\n",
        ).replace("[{uuid: GPU-b0, memory: 80Gi}]", "[{uuid: GPU-b0, memory: 80Gi}, {uuid: GPU-b1, memory: 80Gi}]")
        + """    - name: gpu-c
      product: NVIDIA-H100-80GB-HBM3
      gpus:
        - {uuid: GPU-c0, memory: 40Gi}
        - {uuid: GPU-c1, memory: 80Gi}
"""
    )
    assert found.changes == (
        "gpu-a: GPU-a4 is new, 80Gi",
        "gpu-b: GPU-b1 is new, 80Gi",
        "gpu-c: new, 2 GPUs NVIDIA-H100-80GB-HBM3",
    )
    assert "gpu-a: GPU-a4 in no NVLink domain: add to nvlinkDomains, or give --topology" in found.notes
    assert "gpu-c: unknown NVLink domains, so no GPUs are treated as connected: give --topology FILE" in found.notes


def test_memory_product_and_version_are_corrected_in_their_place() -> None:
    live = cluster(
        LiveNode("gpu-a", "NVIDIA-H200", (gpu("a0"), gpu("a1", 141), gpu("a2", 141), gpu("a3"))),
        node("gpu-b", "b0"),
        version="1.35",
    )
    text, found = discovered(BY_HAND, live)
    assert text == BY_HAND.replace("'1.36'", "'1.35'").replace(
        "name: gpu-a\n      product: NVIDIA-H100-80GB-HBM3", "name: gpu-a\n      product: NVIDIA-H200"
    ).replace("{ memory: 80Gi, uuid: GPU-a1 }", "{ memory: 141Gi, uuid: GPU-a1 }").replace(
        "GPU-a2\n          memory: 80Gi", "GPU-a2\n          memory: 141Gi"
    )
    assert found.changes == (
        "gpu-a: product NVIDIA-H100-80GB-HBM3 -> NVIDIA-H200",
        "gpu-a: GPU-a1 memory 80Gi -> 141Gi",
        "gpu-a: GPU-a2 memory 80Gi -> 141Gi",
        "kubernetes: 1.36 -> 1.35",
    )


def test_a_node_that_is_gone_goes_and_the_comments_around_it_stay() -> None:
    text, found = discovered(BY_HAND, cluster(node("gpu-b", "b0")))
    start, end = BY_HAND.index("    - name: gpu-a"), BY_HAND.index("    # The new rack.")
    assert text == BY_HAND[:start] + BY_HAND[end:]
    assert found.changes == ("gpu-a: gone, with 4 GPUs",)


def test_all_gpus_of_a_node_may_be_replaced_and_settings_for_the_old_ones_go() -> None:
    text, found = discovered(BY_HAND, cluster(node("gpu-a", "x0", "x1"), node("gpu-b", "x2")))
    [after] = documents(text)
    assert [g.uuid for n in after.spec.nodes for g in n.gpus] == ["GPU-x0", "GPU-x1", "GPU-x2"]
    assert after.spec.nodes[0].reserved == after.spec.nodes[0].nvlink_domains == ()
    assert "reserved" not in text
    assert len([line for line in found.changes if "is gone" in line]) == 5
    assert "gpu-a: unknown NVLink domains, so no GPUs are treated as connected: give --topology FILE" in found.notes


@pytest.mark.parametrize(
    ("gpus", "domains"),
    [
        # All are others: what the label says counts, as for a document that says nothing.
        (["x0", "x1"], [[0, 1]]),
        # One is left: the domains of the document do.
        (["a0", "x0", "x1"], [[0]]),
    ],
)
def test_domains_that_all_went_with_their_gpus_are_filled_anew(gpus: list[str], domains: list[list[int]]) -> None:
    _, found = discovered(BY_HAND, cluster(node("gpu-a", *gpus, connected=True), node("gpu-b", "b0")))
    assert found.cluster.plain()["spec"]["nodes"][0]["nvlinkDomains"] == domains


def test_a_gpu_that_was_put_into_another_node_is_found_there() -> None:
    text, found = discovered(BY_HAND, cluster(node("gpu-a", "a0", "a1", "a2"), node("gpu-b", "b0", "a3")))
    [after] = documents(text)
    assert {n.name: [g.uuid for g in n.gpus] for n in after.spec.nodes} == {
        "gpu-a": ["GPU-a0", "GPU-a1", "GPU-a2"],
        "gpu-b": ["GPU-b0", "GPU-a3"],
    }
    assert "gpu-a: GPU-a3 is in node gpu-b now (index 3, was reserved and in NVLink domain [[2, 3]])" in found.changes


@pytest.mark.parametrize(
    ("live", "said"),
    [
        (
            cluster(node("gpu-a", incomplete="1 of 2 ResourceSlices of pool gpu-a are published"), node("gpu-b", "b0")),
            "gpu-a: 1 of 2 ResourceSlices of pool gpu-a are published; kept: re-run when it is complete",
        ),
        (
            cluster(node("gpu-a"), node("gpu-b", "b0")),
            "gpu-a: no driver publishes its GPUs now; kept: remove the node by hand if it has no GPUs",
        ),
        (
            cluster(node("gpu-b", "b0"), others=frozenset({"gpu-a"})),
            "gpu-a: no driver publishes its GPUs now; kept: remove the node by hand if it has no GPUs",
        ),
    ],
    ids=["half of its slices", "no slices", "no slices and no label"],
)
def test_a_node_whose_gpus_are_not_all_published_is_kept_and_that_is_said(live: LiveCluster, said: str) -> None:
    text, found = discovered(BY_HAND, live)
    assert text == BY_HAND
    assert said in found.notes


def test_a_cluster_without_any_gpu_changes_nothing() -> None:
    with pytest.raises(ScepsyError, match=r"no node publishes a GPU through the driver gpu\.nvidia\.com"):
        discovered(BY_HAND, cluster(others=frozenset({"plain"})))


def test_troubles_of_nodes_and_gpus_are_told() -> None:
    live = cluster(
        node(
            "gpu-a",
            "a0",
            gpu("a1", sick=Trouble("device taint gpu.nvidia.com/xid=79", "2026-05-01T10:00:00Z")),
            "a2",
            "a3",
            unready=Trouble("not ready: KubeletNotReady", "2026-05-01T09:00:00Z"),
            cordoned=Trouble("cordoned"),
            conditions=(Trouble("node condition XIDErrors=True: Xid 79"),),
            taints=("team=vision:NoSchedule",),
        ),
        node("gpu-b", "b0"),
        has_class=False,
    )
    text, found = discovered(BY_HAND, live)
    assert text == BY_HAND
    assert found.notes == (
        "there is no DeviceClass gpu.nvidia.com, so no GPU can be claimed: install the driver's DeviceClasses",
        "gpu-a: not ready: KubeletNotReady since 2026-05-01T09:00:00Z",
        "gpu-a: cordoned",
        "gpu-a: node condition XIDErrors=True: Xid 79",
        "gpu-a: taint team=vision:NoSchedule, which pods of engines do not tolerate",
        "gpu-a: GPU-a1 is sick: device taint gpu.nvidia.com/xid=79 since 2026-05-01T10:00:00Z",
    )


def test_a_version_that_manifests_are_not_made_for_is_told_and_the_document_keeps_its_own() -> None:
    text, found = discovered(BY_HAND, cluster(*both(), version="1.41"))
    assert text == BY_HAND
    assert found.notes == ("the cluster runs Kubernetes 1.41; manifests support 1.34 to 1.37",)


def test_a_version_that_is_nowhere_written_is_added_to_the_spec() -> None:
    text, _ = discovered(BY_HAND.replace("  kubernetes: '1.36'\n", ""), cluster(*both(), version="1.37"))
    assert text == BY_HAND.replace("  kubernetes: '1.36'\n", "") + '  kubernetes: "1.37"\n'


def test_a_result_that_a_compile_would_refuse_is_refused_here() -> None:
    text = BY_HAND.replace("dra-mps", "hami-dra")
    with pytest.raises(DocumentError, match=r"hami-dra needs Kubernetes 1\.36"):
        discovered(text, cluster(*both(), version="1.35"))


def both() -> tuple[LiveNode, LiveNode]:
    return node("gpu-a", "a0", "a1", "a2", "a3"), node("gpu-b", "b0")


# ---- layouts


LAYOUTS = {
    "as people write": BY_HAND,
    "as the examples": HEADER
    + """spec:
  kubernetes: "1.36"
  nodes:
    - name: gpu-a
      product: NVIDIA-H100-80GB-HBM3
      gpus:
        - {uuid: GPU-a0, memory: 80Gi}
        - {uuid: GPU-a1, memory: 80Gi}
        - {uuid: GPU-a2, memory: 80Gi}
        - {uuid: GPU-a3, memory: 80Gi}
      nvlinkDomains: [[0, 1], [2, 3]]
      reserved: [3, 1]
    - name: gpu-b
      product: NVIDIA-H100-80GB-HBM3
      gpus:
        - {uuid: GPU-b0, memory: 80Gi}
""",
    "all in blocks, lists not indented": HEADER
    + """spec:
  nodes:
  - name: gpu-a
    gpus:
    - uuid: GPU-a0
      memory: 80Gi
    - uuid: GPU-a1
      memory: 80Gi
    - uuid: GPU-a2
      memory: 80Gi
    - uuid: GPU-a3
      memory: 80Gi
    reserved:
    - 3
    - 1
    nvlinkDomains:
    - - 0
      - 1
    - - 2
      - 3
    product: NVIDIA-H100-80GB-HBM3
  - gpus:
    - uuid: GPU-b0
      memory: 80Gi
    name: gpu-b
    product: NVIDIA-H100-80GB-HBM3
""",
    "as JSON": '{"apiVersion": "scepsy.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "prod"}, "spec": {"nodes": ['
    '{"name": "gpu-a", "product": "NVIDIA-H100-80GB-HBM3", "gpus": [{"uuid": "GPU-a0", "memory": "80Gi"}, {"uuid": '
    '"GPU-a1", "memory": "80Gi"}, {"uuid": "GPU-a2", "memory": "80Gi"}, {"uuid": "GPU-a3", "memory": "80Gi"}], '
    '"reserved": [3, 1], "nvlinkDomains": [[0, 1], [2, 3]]}, {"name": "gpu-b", "product": "NVIDIA-H100-80GB-HBM3", '
    '"gpus": [{"uuid": "GPU-b0", "memory": "80Gi"}]}]}}\n',
    "brackets over several lines": HEADER
    + """spec:
  nodes: [
    {
      name: gpu-a,
      product: NVIDIA-H100-80GB-HBM3,
      gpus: [
        { uuid: GPU-a0, memory: 80Gi },   # zero
        { uuid: GPU-a1, memory: 80Gi },   # one
        { uuid: GPU-a2, memory: 80Gi },   # two
        { uuid: GPU-a3, memory: 80Gi }    # three
      ],
      reserved: [
        3,
        1
      ],
      nvlinkDomains: [
        [0, 1],
        [2, 3],
      ],
    },
    {name: gpu-b, product: NVIDIA-H100-80GB-HBM3, gpus: [
      {uuid: GPU-b0, memory: 80Gi},   # zero
    ]},
  ]
""",
    "Windows line ends, no line end at the end": BY_HAND.replace("\n", "\r\n")[:-2],
    "a byte order mark, other documents around, é": "\ufeff# é 😀\n---\n# nothing\n---\n" + BY_HAND + "---\n" + BY_HAND,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "live",
    [
        both(),
        (node("gpu-a", "a1", "a2", "a3"), node("gpu-b", "b0")),
        (node("gpu-a", "a0", "a1", "a2"), node("gpu-b", "b0")),
        (node("gpu-a", "a2"), node("gpu-b", "b1")),
        (node("gpu-a", "a0", "a1", "a2", "a3", "a4", "a5"), node("gpu-b", "b0", "b1")),
        (node("gpu-a", "a0", "a3", "a4"), node("gpu-b", "b1", "b2")),
        (node("gpu-a", "x0", "x1"), node("gpu-b", "x2")),
        (node("gpu-a", gpu("a0", 40), "a1", "a2", gpu("a3", 40)), node("gpu-b", gpu("b0", 40))),
        (node("gpu-b", "b0"),),
        (node("gpu-a", "a0", "a1", "a2", "a3"),),
        (node("gpu-c", "c0", "c1"),),
        (*both(), node("gpu-c", "c0"), node("gpu-d", "d0", "d1")),
    ],
    ids=lambda nodes: " ".join(f"{n.name}:{','.join(g.uuid[4:] for g in n.gpus)}" for n in nodes),
)
def test_every_layout_can_be_edited_and_keeps_its_comments(layout: str, live: tuple[LiveNode, ...]) -> None:
    before = LAYOUTS[layout]
    there = cluster(*live)
    text, found = discovered(before, there)

    # It says what was meant; a second look finds nothing; what was about GPUs that stay still is.
    kept = {g.uuid for n in live for g in n.gpus}
    after = documents(text)[0]
    assert after == found.cluster
    assert kept == {g.uuid for n in after.spec.nodes for g in n.gpus}
    again, second = discovered(text, there)
    assert (again, second.changes) == (text, ())
    assert meant(after) == [
        (what, frozenset(uuids) & kept) for what, uuids in meant(documents(before)[0]) if frozenset(uuids) & kept
    ]
    assert documents(text)[1:] == documents(before)[1:]
    # Comments that stand on their own lines stay.
    assert comments_that_stay(before, after) <= set(re.findall(r"# [^\r\n]*", text))
    assert text.count("\r\n") in (0, text.count("\n"))


def comments_that_stay(text: str, after: Cluster) -> set[str]:
    """Comments on lines of their own, but those inside a node that goes."""
    lost = set() if any(n.name == "gpu-a" for n in after.spec.nodes) else {"# Swapped in May."}
    return {comment.rstrip("\r") for comment in re.findall(r"^ *(# .*)$", text, re.MULTILINE)} - lost


def meant(document: Cluster) -> list[tuple[str, frozenset[str]]]:
    """What settings are about, by UUID."""
    result = []
    for n in document.spec.nodes:
        result += [(f"{n.name} reserved", frozenset({n.gpus[i].uuid})) for i in n.reserved]
        result += [(f"{n.name} domain", frozenset(n.gpus[i].uuid for i in domain)) for domain in n.nvlink_domains]
    return result


@pytest.mark.parametrize(
    ("text", "live"),
    [
        (
            BY_HAND.replace("reserved: [3, 1]", "reserved: &r [3, 1]").replace(
                "gpus: [{uuid: GPU-b0, memory: 80Gi}]}",
                "gpus: [{uuid: GPU-b0, memory: 80Gi}, {uuid: GPU-b1, memory: 80Gi}, {uuid: GPU-b2, memory: 80Gi}, "
                "{uuid: GPU-b3, memory: 80Gi}], reserved: *r}",
            ),
            (node("gpu-a", "a0", "a1", "a2"), node("gpu-b", "b0", "b1", "b2", "b3")),
        ),
        (
            BY_HAND.replace("{uuid: GPU-a0, memory: 80Gi}", "{uuid: GPU-a0, memory: &m 80Gi}").replace(
                "{uuid: GPU-a3, memory: 80Gi}", "{uuid: GPU-a3, memory: *m}"
            ),
            (node("gpu-a", gpu("a0", 40), "a1", "a2", "a3"), node("gpu-b", "b0")),
        ),
    ],
    ids=["a list that another node uses", "a size that another GPU uses"],
)
def test_what_is_written_in_a_way_that_cannot_be_edited_is_left_alone(text: str, live: tuple[LiveNode, ...]) -> None:
    with pytest.raises(ScepsyError, match="cannot be edited safely") as raised:
        discovered(text, cluster(*live))
    assert "replace aliases (*name) by their values" in raised.value.hint


# ---- new documents


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.yaml")))
def test_a_cluster_gives_back_the_example_it_was_made_from(example: str) -> None:
    text = (EXAMPLES / example).read_text()
    [document] = documents(text)
    live = live_of(document)
    assert discovered(text, live)[0] == text

    new = fresh(document.metadata.name, live, {})
    nodes = [n.model_copy(update={"nvlink_domains": ()}) for n in document.spec.nodes]
    spec = document.spec.model_copy(update={"nodes": tuple(nodes), "sharing": "dra-exclusive"})
    assert new.cluster == document.model_copy(update={"spec": spec})
    assert documents(checked(new.cluster, "c.yaml").decode()) == [new.cluster]
    # Only the UUIDs' comment, the way of sharing and what connects the GPUs are not known to the cluster.
    lines = set(text.splitlines()) - set(checked(new.cluster, "c.yaml").decode().splitlines())
    assert all(line.startswith("# ") or "sharing" in line or "nvlinkDomains" in line for line in lines)


def test_a_label_that_says_that_nvlink_connects_the_gpus_fills_what_is_not_given() -> None:
    live = cluster(node("gpu-a", "a0", "a1", connected=True))
    assert fresh("prod", live, {}).cluster.spec.nodes[0].nvlink_domains == ((0, 1),)
    text = (
        HEADER
        + "spec: {nodes: [{name: gpu-a, product: %s, gpus: [{uuid: GPU-a0, memory: 80Gi}, {uuid: GPU-a1, memory: 80Gi}]%s}]}\n"
    )
    silent, none = text % (H100, ""), text % (H100, ", nvlinkDomains: []")
    assert discovered(silent, live)[0] == text % (H100, ", nvlinkDomains: [[0, 1]]")
    assert discovered(none, live)[0] == none


def test_without_any_word_on_connections_none_are_assumed_whatever_the_product() -> None:
    found = fresh("prod", cluster(node("gpu-a", "a0", "a1")), {})
    assert found.cluster.spec.nodes[0].nvlink_domains == ()
    assert "gpu-a: unknown NVLink domains, so no GPUs are treated as connected: give --topology FILE" in found.notes


def test_nodes_that_are_not_whole_are_left_out_of_a_new_document_and_named() -> None:
    found = fresh("prod", cluster(node("gpu-a", "a0"), node("gpu-b", "b0", incomplete="1 of 2 slices")), {})
    assert [n.name for n in found.cluster.spec.nodes] == ["gpu-a"]
    assert "gpu-b: 1 of 2 slices; left out: re-run when it is complete" in found.notes


def test_what_fits_no_document_is_an_error() -> None:
    with pytest.raises(
        ScepsyError, match=r"does not fit a Cluster document: spec\.nodes\.0\.gpus: Tuple should have at most 64"
    ):
        fresh("prod", cluster(node("gpu-a", *(f"a{i}" for i in range(65)))), {})
    with pytest.raises(DocumentError, match="less than 1Gi"):
        checked(fresh("prod", cluster(node("gpu-a", gpu("a0", 0.5))), {}).cluster, "c.yaml")  # type: ignore[arg-type]


# ---- whatever happens to the hardware


NAMES = st.lists(st.sampled_from([f"{n}{i}" for n in "abcd" for i in range(4)]), unique=True, max_size=8)


@st.composite
def clusters(draw: st.DrawFn) -> LiveCluster:
    uuids = draw(NAMES.filter(bool))
    places = draw(st.lists(st.sampled_from(["gpu-a", "gpu-b", "gpu-c"]), min_size=len(uuids), max_size=len(uuids)))
    sizes = draw(st.lists(st.sampled_from([40, 80]), min_size=len(uuids), max_size=len(uuids)))
    made = []
    for name in sorted(set(places)):
        own = [gpu(u, s) for u, p, s in zip(uuids, places, sizes, strict=True) if p == name]
        made.append(node(name, *own, incomplete=draw(st.sampled_from(["", "", "", "some"]))))
    others = draw(st.sets(st.sampled_from(["gpu-a", "gpu-b"]))) - set(places)
    return cluster(*made, version=draw(st.sampled_from(["1.35", "1.36"])), others=frozenset(others))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(LAYOUTS)), st.lists(clusters(), min_size=1, max_size=3))
def test_discovering_again_and_again_settles_and_settings_keep_their_meaning(
    layout: str, history: list[LiveCluster]
) -> None:
    text = LAYOUTS[layout]
    for live in history:
        before = documents(text)[0]
        try:
            new, found = discovered(text, live)
        except ScepsyError as error:
            # The last GPU of the document may have gone while nothing whole is there.
            assert "does not fit a Cluster document: spec.nodes" in str(error)  # noqa: PT017
            continue
        [after, *others] = documents(new)
        assert after == found.cluster
        assert others == documents(text)[1:]
        assert discovered(new, live)[0] == new
        stays = {(n.name, g.uuid) for n in after.spec.nodes for g in n.gpus}
        wanted = []
        for what, uuids in meant(before):
            left = frozenset(u for u in uuids if (what.split()[0], u) in stays)
            wanted += [(what, left)] if left else []
        assert meant(after) == wanted
        assert comments_that_stay(text, after) <= set(re.findall(r"# [^\r\n]*", new))
        text = new
