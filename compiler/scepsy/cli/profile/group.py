"""`scepsy profile`: measure, estimate, import and show. Each command imports what it needs when it runs."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import click

from scepsy.cli.output import output_option


@click.group()
def profile() -> None:
    """Find out how fast models run: measure, estimate, import, and show."""


@profile.command()
@click.option("--cluster", metavar="NAME", help="The cluster; needed when the project has several.")
@click.option("--project", type=click.Path(path_type=Path), default=Path(), help="Directory with scepsy.yaml.")
@output_option("ProfilePlanResult")
def plan(cluster: str | None, project: Path, output: str) -> None:
    """Say which measurements the workflows and a cluster still need, and which profiles are stale."""
    from scepsy.cli.output import console, print_json, reporting
    from scepsy.cli.profile.plan import run
    from scepsy.documents import API_VERSION
    from scepsy.documents.command_results import Failure, ProfilePlanResult

    def failed(failure: Failure) -> ProfilePlanResult:
        return ProfilePlanResult(api_version=API_VERSION, error=failure)

    result = reporting(lambda: run(project, cluster), output, failed)
    if output == "json":
        print_json(result)
    else:
        from scepsy.report.profile_plan_terminal import show_profile_plan

        show_profile_plan(console(), result)


@profile.command()
@click.option("--cluster", metavar="NAME", help="The cluster; needed when the project has several.")
@click.option("--wait", is_flag=True, help="Wait for the results, and commit the Profiles on a branch.")
@click.option("--dry-run", is_flag=True, help="Print the Workflows, and contact nobody.")
@click.option("--timeout", metavar="DURATION", default="24h", show_default=True, help="How long to wait.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig; its current one by default.")
@click.option(
    "--argo-server",
    metavar="URL",
    help="Reach Argo through its server instead (ARGO_SERVER); its token is read from ARGO_TOKEN.",
)
@click.option("--branch", metavar="NAME", help="Branch for the Profiles; profiles/DIGEST by default.")
@click.option("--project", type=click.Path(path_type=Path), default=Path(), help="Directory with scepsy.yaml.")
def submit(
    cluster: str | None,
    wait: bool,
    dry_run: bool,
    timeout: str,
    context: str | None,
    argo_server: str | None,
    branch: str | None,
    project: Path,
) -> None:
    """Have the cluster measure what is missing: one Argo Workflow per model, GPU product and token mix.

    Jobs that run already are joined; of those that failed, only what failed is measured anew.
    """
    if dry_run and wait:
        raise click.UsageError("--dry-run submits nothing, so it cannot go with --wait")
    if branch is not None and not wait:
        raise click.UsageError("--branch is for the results, so it needs --wait")
    from scepsy.profiling.jobs.lifecycle import Where
    from scepsy.profiling.jobs.lifecycle import submit as submit_jobs

    submit_jobs(Where(project, cluster, context, argo_server), wait, dry_run, timeout, branch)


@profile.command()
@click.option("--cluster", metavar="NAME", help="The cluster; needed when the project has several.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig; its current one by default.")
@click.option(
    "--argo-server",
    metavar="URL",
    help="Reach Argo through its server instead (ARGO_SERVER); its token is read from ARGO_TOKEN.",
)
@click.option("--branch", metavar="NAME", help="Branch for the Profiles; profiles/DIGEST by default.")
@click.option("--project", type=click.Path(path_type=Path), default=Path(), help="Directory with scepsy.yaml.")
def collect(
    cluster: str | None, context: str | None, argo_server: str | None, branch: str | None, project: Path
) -> None:
    """Commit the Profiles of finished jobs on a branch, before their time to live ends."""
    from scepsy.profiling.jobs.lifecycle import Where
    from scepsy.profiling.jobs.lifecycle import collect as collect_jobs

    collect_jobs(Where(project, cluster, context, argo_server), branch)


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
    from scepsy.cli.profile.estimate import run

    run(models, products, degrees, mixes, workflow, trace, llm, output, project)


class _Run(click.Command):
    """`run` as a job gives it: an empty value means that the option is not given, and mistakes are told in `--job`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line without what is empty."""
        given = _without_empty(args, {name for p in self.params if not getattr(p, "is_flag", True) for name in p.opts})
        try:
            return super().parse_args(ctx, list(given))
        except click.UsageError as error:
            pairs = [*itertools.pairwise(given), *(tuple(word.partition("=")[::2]) for word in given)]
            job = next((value for name, value in pairs if name == "--job" and value), None)
            if job is None:
                raise
            from scepsy.profiling.measuring.session import refuse

            refuse(Path(job), error.format_message())
            raise


def _without_empty(args: Iterable[str], options: Container[str]) -> list[str]:
    kept, words = [], iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        pair = [word, *([] if equals else itertools.islice(words, 1))] if name in options else [word]
        if name not in options or (value if equals else pair[-1]) != "":
            kept += pair
    return kept


@profile.command(cls=_Run)
@click.option("--base-url", metavar="URL", help="Where a vLLM server listens; or else:")
@click.option("--serve", is_flag=True, help="Start one as instances are started, and stop it in the end.")
@click.option("--model", metavar="ID", required=True, help="The model's id, as workflows name it.")
@click.option("--revision", help="The model's revision, if it is pinned.")
@click.option("--served-as", metavar="NAME", help="With --base-url: the name under which it is served, if another.")
@click.option("--api-key-env", metavar="VAR", help="With --base-url: environment variable that holds the API key.")
@click.option("--memory", metavar="QUANTITY", help="With --serve: memory of one GPU, such as 80Gi; needed.")
@click.option(
    "--sharing",
    type=click.Choice(["dra-exclusive", "dra-mps", "hami-dra"]),
    default="dra-exclusive",
    show_default=True,
    help="With --serve: how the cluster shares GPUs.",
)
@click.option(
    "--max-model-len", type=click.IntRange(min=16), help="With --serve: longest call; the model's own if not."
)
@click.option(
    "--neighbours",
    type=click.Choice(["idle", "busy"]),
    show_default="idle",
    help="With --serve and a share under MPS: busy draws memory bandwidth from the rest of the GPU meanwhile.",
)
@click.option("--trace", type=click.Path(path_type=Path, dir_okay=False), help="Recorded calls, to be replayed.")
@click.option("--llm", metavar="NAME", required=True, help="The LLM's name in the trace.")
@click.option("--product", required=True, help="GPU product, as in the node label nvidia.com/gpu.product.")
@click.option(
    "--tp", type=click.Choice(["1", "2", "4", "8"]), default="1", show_default=True, help="Tensor-parallel degree."
)
@click.option("--share", type=float, default=1.0, show_default=True, help="Share of each GPU, in tenths.")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The model's config.json; fetched with huggingface_hub if not given.",
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
@click.option(
    "--wait",
    metavar="DURATION",
    show_default="10min; with --serve by the size of the weights",
    help="Time to become healthy.",
)
@click.option("--date", metavar="YYYY-MM-DD", help="Day of the measurement; today if not given.")
@click.option(
    "--image-digest", envvar="SCEPSY_IMAGE_DIGEST", show_envvar=True, help="Digest of the engine's image, or the image."
)
@click.option("--driver", envvar="SCEPSY_DRIVER", show_envvar=True, help="Version of the GPU's driver.")
@click.option(
    "--flag",
    "flags",
    metavar="FLAG",
    multiple=True,
    envvar="SCEPSY_ENGINE_FLAGS",
    show_envvar=True,
    help="A flag of the engine, to be noted, and with --serve to be added; repeat it for more.",
)
@click.option(
    "--trace-digest", metavar="DIGEST", help="Digest of the trace from which the calls were taken, to be noted."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="profile.yaml",
    help="File to write; beside it FILE.partial holds what is done until then.",
)
@click.option(
    "--job",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Instead of --trace and -o: read DIR/in/{calls,resume}, write DIR/out/{outcome,profile,partial}.",
)
def run(tp: str, **options: Any) -> None:
    """Measure a vLLM server with recorded calls, and write a Profile.

    Interrupted, it goes on after the last complete point when it is started again with the same arguments.

    Exit codes with --job: 0 measured, or found not to run on this shape, 75 another attempt may help, 1 it cannot. An
    empty value means that an option is not given.
    """
    from scepsy.profiling.measuring.session import run as measure

    code = measure({"tp": int(tp), **options})
    if code:
        sys.exit(code)


@profile.command("import")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="FILE_OR_DIR..."
)
@click.option("--model", metavar="ID", required=True, help="The model's id, as workflows name it.")
@click.option("--product", required=True, help="GPU product, as in the node label nvidia.com/gpu.product.")
@click.option(
    "--tp",
    type=click.Choice(["1", "2", "4", "8"]),
    help="Tensor-parallel degree; what a sweep says, else 1, by default.",
)
@click.option("--share", type=float, default=1.0, show_default=True, help="Share of each GPU, in tenths.")
@click.option("--engine-version", metavar="VERSION", help="vLLM's version, where --metadata version=… does not say it.")
@click.option("--revision", help="The model's revision, if it was pinned.")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The model's config.json; by default the shape is that in the project's profiles.",
)
@click.option("--parameters", type=click.IntRange(min=1), help="Their number, where it cannot be counted (MoE).")
@click.option("--image-digest", help="Digest of the engine's image.")
@click.option("--driver", help="Version of the GPU's driver.")
@click.option("--flag", "flags", metavar="FLAG", multiple=True, help="A flag of the engine, to be noted; may repeat.")
@click.option("--self-timed", is_flag=True, help="Runs without a rate replayed a trace at its own times.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write; one among the project's profiles by default.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("--project", type=click.Path(path_type=Path), default=Path(), help="Directory with scepsy.yaml.")
def import_(tp: str | None, **options: Any) -> None:
    """Import results of `vllm bench serve` and directories of `vllm bench sweep` as a Profile."""
    from scepsy.cli.profile.import_ import Options
    from scepsy.cli.profile.import_ import run as read

    read(Options(tp=None if tp is None else int(tp), **options))


@profile.command()
@click.argument("model")
@click.option("--product", metavar="PRODUCT", help="Only what was profiled on this GPU product.")
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with the curves and all points, too."
)
@click.option("--project", type=click.Path(path_type=Path), default=Path(), help="Directory with scepsy.yaml.")
def show(model: str, product: str | None, html: Path | None, project: Path) -> None:
    """Show what is known of how fast MODEL runs: measured and estimated curves, and how far they differ."""
    from scepsy.cli.profile.show import run as print_curves

    print_curves(model, product, html, project)
