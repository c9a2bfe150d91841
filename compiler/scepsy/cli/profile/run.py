"""`scepsy profile run`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any, get_args

import click

from scepsy.cli.profile.progress import log, measuring
from scepsy.documents.cluster import Sharing


class _Run(click.Command):
    """`run` as a job gives it: an empty value means that the option is not given, and errors name `--job`."""

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
            from scepsy.profiling.measuring.session import refuse  # noqa: PLC0415 - needs aiohttp

            refuse(Path(job), error.format_message(), log)
            raise


def _without_empty(args: Iterable[str], options: Container[str]) -> list[str]:
    kept, words = [], iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        pair = [word, *([] if equals else itertools.islice(words, 1))] if name in options else [word]
        if name not in options or (value if equals else pair[-1]) != "":
            kept += pair
    return kept


@click.command("run", cls=_Run)
@click.option("--base-url", metavar="URL", help="URL of a running vLLM server; or else:")
@click.option("--serve", is_flag=True, help="Start a server with the flags of an instance, and stop it at the end.")
@click.option("--model", metavar="ID", required=True, help="The model's id, as workflows name it.")
@click.option("--revision", help="The model's revision, if it is pinned.")
@click.option("--served-as", metavar="NAME", help="With --base-url: the served model name, if different.")
@click.option("--api-key-env", metavar="VAR", help="With --base-url: environment variable that holds the API key.")
@click.option("--memory", metavar="QUANTITY", help="With --serve: memory of one GPU, such as 80Gi; required.")
@click.option(
    "--sharing",
    type=click.Choice(get_args(Sharing)),
    default="dra-exclusive",
    show_default=True,
    help="With --serve: how the cluster shares GPUs.",
)
@click.option(
    "--max-model-len", type=click.IntRange(min=16), help="With --serve: longest call; default: the model's context."
)
@click.option(
    "--neighbours",
    type=click.Choice(["idle", "busy"]),
    show_default="idle",
    help="With --serve and a share under MPS: busy uses memory bandwidth on the rest of the GPU meanwhile.",
)
@click.option("--trace", type=click.Path(path_type=Path, dir_okay=False), help="Recorded calls to replay.")
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
@click.option("--parameters", type=click.IntRange(min=1), help="Number of parameters, if it cannot be computed (MoE).")
@click.option(
    "--max-num-seqs",
    type=click.IntRange(min=1, max=4096),
    default=256,
    show_default=True,
    help="Most calls in flight: the engine's --max-num-seqs.",
)
@click.option("--budget", metavar="DURATION", default="30min", show_default=True, help="Time for all points together.")
@click.option(
    "--wait",
    metavar="DURATION",
    show_default="10min; with --serve by model size",
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
    help="An engine flag to note, and with --serve to add; may be repeated.",
)
@click.option("--trace-digest", metavar="DIGEST", help="Digest of the trace that the calls come from, to note.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="profile.yaml",
    help="File to write; FILE.partial beside it has the completed points.",
)
@click.option(
    "--job",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Instead of --trace and -o: read DIR/in/{calls,resume}, write DIR/out/{outcome,profile,partial}.",
)
def command(tp: str, **options: Any) -> None:
    """Measure a vLLM server with recorded calls, and write a Profile.

    Interrupted, it goes on after the last complete point when it is started again with the same arguments.

    Exit codes with --job: 0 measured, or found not to run on this shape, 75 another attempt may help, 1 it cannot. An
    empty value means that an option is not given.
    """
    from scepsy.profiling.measuring.session import run as measure  # noqa: PLC0415 - needs aiohttp

    with measuring() as (report, status):
        code = measure({"tp": int(tp), **options}, report, status)
    if code:
        sys.exit(code)
