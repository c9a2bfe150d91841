"""`scepsy profile`: measure, estimate, import and show. Each command imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.group()
def profile() -> None:
    """Find out how fast models run: measure, estimate, import, and show."""


@profile.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--product", "products", metavar="PRODUCT", multiple=True, required=True, help="GPU product.")
@click.option("--tp", "degrees", metavar="1,2,…", help="Tensor-parallel degrees; all that the model allows by default.")
@click.option("--mix", "mixes", metavar="IN/OUT", multiple=True, help="Tokens of a call; five usual mixes by default.")
@click.option("--workflow", metavar="NAME", help="Estimate for the calls of a workflow of the project instead.")
@click.option("--trace", type=click.Path(path_type=Path), metavar="FILE", help="Estimate for recorded calls instead,")
@click.option("--llm", metavar="NAME", help="those to this LLM.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to write; the project's profiles by default.",
)
@click.option("--project", type=click.Path(path_type=Path), default=Path(), help="Directory with scepsy.yaml.")
def estimate(
    models: tuple[str, ...],
    products: tuple[str, ...],
    degrees: str | None,
    mixes: tuple[str, ...],
    workflow: str | None,
    trace: Path | None,
    llm: str | None,
    output: Path | None,
    project: Path,
) -> None:
    """Estimate profiles of MODELs from tables of kernels, without a GPU (needs scepsy[estimate])."""
    from scepsy.cli.profile_estimate import run

    run(models, products, degrees, mixes, workflow, trace, llm, output, project)


@profile.command()
@click.option("--base-url", metavar="URL", required=True, help="Where the vLLM server listens.")
@click.option("--model", metavar="ID", required=True, help="The model's id, as workflows name it.")
@click.option("--served-as", metavar="NAME", help="The name under which the server serves it, if that is another.")
@click.option("--revision", help="The model's revision, if it is pinned.")
@click.option("--api-key-env", metavar="VAR", help="Environment variable that holds the server's API key.")
@click.option(
    "--trace", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Recorded calls, to be replayed."
)
@click.option("--llm", metavar="NAME", required=True, help="The LLM's name in the trace.")
@click.option("--product", required=True, help="GPU product, as in the node label nvidia.com/gpu.product.")
@click.option(
    "--tp", type=click.Choice(["1", "2", "4", "8"]), default="1", show_default=True, help="Tensor-parallel degree."
)
@click.option("--share", type=float, default=1.0, show_default=True, help="Share of each GPU, in tenths.")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The model's config.json.",
)
@click.option("--parameters", type=click.IntRange(min=1), help="Their number, where it cannot be counted (MoE).")
@click.option(
    "--max-num-seqs",
    type=click.IntRange(min=1, max=4096),
    default=256,
    show_default=True,
    help="Most calls in flight; the engine's flag of that name.",
)
@click.option("--budget", metavar="DURATION", default="30min", show_default=True, help="Time for all points together.")
@click.option("--wait", metavar="DURATION", default="10min", show_default=True, help="Time to become healthy.")
@click.option("--date", metavar="YYYY-MM-DD", help="Day of the measurement; today if not given.")
@click.option("--image-digest", envvar="SCEPSY_IMAGE_DIGEST", show_envvar=True, help="Digest of the engine's image.")
@click.option("--driver", envvar="SCEPSY_DRIVER", show_envvar=True, help="Version of the GPU's driver.")
@click.option(
    "--flag",
    "flags",
    metavar="FLAG",
    multiple=True,
    envvar="SCEPSY_ENGINE_FLAGS",
    show_envvar=True,
    help="A flag of the engine, to be noted; repeat it for more.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("profile.yaml"),
    show_default=True,
    help="File to write; beside it FILE.partial holds what is done until then.",
)
def run(tp: str, **options: Any) -> None:
    """Measure a running vLLM server with recorded calls, and write a Profile.

    Interrupted, it goes on after the last complete point when it is started again with the same arguments.
    """
    from scepsy.cli.profile_run import Options
    from scepsy.cli.profile_run import run as measure

    measure(Options(tp=int(tp), **options))
