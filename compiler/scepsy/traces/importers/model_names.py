"""Which LLM of the workflow a model name in a trace stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scepsy.documents import Llm, did_you_mean
from scepsy.documents.diagnostics import printable
from scepsy.errors import ScepsyError

_SHOWN = 20


def parse_renames(options: Sequence[str], llms: Sequence[Llm] | None) -> dict[str, str]:
    """Return LLM name by model name, as `--llm MODEL=NAME` gives them.

    Args:
        options: the values of the option.
        llms: the workflow's LLMs; None if they are not known.

    Raises:
        ScepsyError: an option is not of that form, contradicts another, or names no LLM of the workflow.
    """
    renames: dict[str, str] = {}
    for option in options:
        # Model names may hold "=", names of LLMs may not.
        model, equals, name = option.rpartition("=")
        if not (equals and model and name):
            raise ScepsyError(f'--llm "{printable(option)}" is not MODEL=NAME', "write --llm gpt-4o=planner")
        if renames.setdefault(model, name) != name:
            raise ScepsyError(f'--llm gives "{printable(model)}" two names: {renames[model]} and {name}')
        if llms is not None and name not in [llm.name for llm in llms]:
            hint = did_you_mean(name, [llm.name for llm in llms])
            raise ScepsyError(f'--llm: the workflow has no LLM "{printable(name)}"', hint)
    return renames


def names_of(models: Mapping[str, int], llms: Sequence[Llm] | None, renames: Mapping[str, str]) -> dict[str, str]:
    """Return the name of the LLM that each model of a trace stands for.

    A model is what `renames` says; or else the LLM of that name; or the only one that serves it, which its id shows,
    or the id's last part, whatever the case.

    Args:
        models: how many calls each model of the trace has.
        llms: the workflow's LLMs; None if they are not known, which leaves names as they are.
        renames: as `parse_renames` returns them.

    Raises:
        ScepsyError: some models match no LLM, or several; all of them are listed.
    """
    if llms is None:
        return {model: renames.get(model, model) for model in models}
    found = {model: [renames[model]] if model in renames else _serving(model, llms) for model in models}
    unknown = sorted((m for m, names in found.items() if len(names) != 1), key=lambda m: (-models[m], m))
    if not unknown:
        return {model: names[0] for model, names in found.items()}
    width = max(len(printable(model)) for model in unknown[:_SHOWN])
    lines = []
    for model in unknown[:_SHOWN]:
        served = f"  served by {' and '.join(found[model])}" if found[model] else ""
        lines.append(f"  {printable(model):{width}}  {models[model]} calls{served}")
    if len(unknown) > _SHOWN:
        lines.append(f"  and {len(unknown) - _SHOWN} more")
    names = "|".join(llm.name for llm in llms)
    options = " ".join(f"--llm {_quoted(model)}={names if len(llms) < 4 else 'NAME'}" for model in unknown[:_SHOWN])
    listed = "" if len(llms) < 4 else f" (NAME is one of {', '.join(llm.name for llm in llms)})"
    message = "models that are no LLM of the workflow, by name or by model id:\n" + "\n".join(lines)
    raise ScepsyError(message, f"map each model to an LLM: {options}{listed}")


def _serving(model: str, llms: Sequence[Llm]) -> list[str]:
    """Return the LLMs that a model name may stand for, by the first way of comparing that finds any."""

    def base(name: str) -> str:
        return name.rsplit("/", 1)[-1].lower()

    ways = (
        [llm.name for llm in llms if llm.name == model],
        [llm.name for llm in llms if llm.model == model],
        [llm.name for llm in llms if llm.model.lower() == model.lower()],
        [llm.name for llm in llms if base(llm.model) == base(model)],
    )
    return next((names for names in ways if names), [])


def _quoted(model: str) -> str:
    plain = printable(model)
    return (
        plain
        if plain.replace("/", "").replace("-", "").replace(".", "").replace("_", "").replace(":", "").isalnum()
        else f"'{plain}'"
    )
