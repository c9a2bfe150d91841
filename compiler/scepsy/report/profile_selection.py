"""Which profiles of a project `scepsy profile show` shows, and the calls that they replayed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from scepsy.demand import demand_of
from scepsy.documents import DocumentError, Loaded, Profile, Workflow, Workspace, did_you_mean
from scepsy.documents.diagnostics import printable
from scepsy.errors import ScepsyError
from scepsy.report.profile_comparison import Groups
from scepsy.repository.partial_project import Part, read_part


def profiles_of(home: Part[Profile], model: str, product: str | None) -> list[Profile]:
    """Return the project's profiles of a model, named with or without its organisation, on one product or on all.

    Raises:
        ScepsyError: there is none, or the name is ambiguous.
    """
    everything = [loaded.document for loaded in home.documents.values()]
    if not everything:
        if home.problems:
            raise DocumentError(home.problems)
        raise ScepsyError(f"there are no profiles in {home.folder}", _how_to_get_one(model))
    models = sorted({profile.spec.model for profile in everything})
    # The organisation may be left out.
    named = [name for name in models if name == model] or [name for name in models if name.endswith(f"/{model}")]
    if len(named) > 1:
        raise ScepsyError(f'"{printable(model)}" may be one of: {", ".join(named)}', "name it with its organisation")
    if not named:
        if home.problems:
            raise DocumentError(home.problems)
        near = did_you_mean(model, models + [name.rpartition("/")[2] for name in models])
        if near.startswith("did you mean"):
            hint = f"{near} Else: {_how_to_get_one(model)}"
        else:
            hint = f"there are profiles of {', '.join(models[:12])}; {_how_to_get_one(model)}"
        raise ScepsyError(f'there is no profile of the model "{printable(model)}"', hint)
    profiles = [profile for profile in everything if profile.spec.model == named[0]]
    chosen = [profile for profile in profiles if product in (None, profile.spec.product)]
    if not chosen:
        products = sorted({profile.spec.product for profile in profiles})
        raise ScepsyError(
            f'{named[0]} is not profiled on product "{printable(product or "")}"',
            did_you_mean(product or "", products),
        )
    return chosen


def replayed_groups(home: Part[Profile], profiles: Sequence[Profile]) -> dict[str, Groups]:
    """Return the groups of the calls that were replayed, by profile, where a workflow of the project names their trace.

    Without them the page shows less, so a workflow that is not valid is skipped.
    """
    replayed = {
        profile.metadata.name: profile
        for profile in profiles
        if profile.spec.provenance.trace_digest and any(series.open_loop for series in profile.spec.series)
    }
    groups: dict[str, Groups] = {}
    for workflow in _workflows(home.directory) if replayed else ():
        try:
            demand, files = demand_of(Workspace(home.root, home.directory, home.project, {}, {}, {}), workflow)
        except ScepsyError:
            continue
        for name, profile in replayed.items():
            called = [llm.name for llm in workflow.document.spec.llms if llm.model == profile.spec.model]
            # The runner notes whose calls it replayed, in its command at least. If only one LLM has the model,
            # it is that one.
            words = (profile.spec.provenance.command or "").split()
            replayed_llms = [llm for llm, option in zip(words[1:], words, strict=False) if option == "--llm"]
            candidates = [llm for llm in (profile.spec.provenance.llm, *replayed_llms) if llm in called]
            llm = (candidates or called)[0] if candidates or len(called) == 1 else None
            if profile.spec.provenance.trace_digest in files.values() and llm in demand.llms:
                groups.setdefault(name, demand.llms[llm].groups)
    return groups


def _workflows(project: Path) -> Iterator[Loaded[Workflow]]:
    with suppress(ScepsyError):
        yield from read_part(project, Workflow).documents.values()


def _how_to_get_one(model: str) -> str:
    name = printable(model)
    return (
        f"measure it (scepsy profile run), import results of vllm bench serve (scepsy profile import), "
        f"or start with an estimate: scepsy profile estimate {name} --product NVIDIA-H100-80GB-HBM3"
    )
