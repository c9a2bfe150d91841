"""Check with nvidia-smi that the GPUs are those that the options name."""

from __future__ import annotations

import re
import shutil
import subprocess

from scepsy.documents.diagnostics import printable
from scepsy.errors import ScepsyError
from scepsy.performance.memory import CARD_RESERVE, MIB
from scepsy.profiling.measuring.failures import TryAgain

_TIMEOUT = 300.0
"""Seconds for nvidia-smi."""


def check_gpus(product: str, tp: int, memory: int | None) -> str | None:
    """Check with `nvidia-smi`, if it is installed, that the GPUs are as stated.

    Args:
        product: the GPU product, as in the node label `nvidia.com/gpu.product`: its name with dashes for spaces.
        tp: how many GPUs there must be.
        memory: bytes of a GPU; None where nvidia-smi does not show whole GPUs.

    Returns:
        The driver's version; None without `nvidia-smi`.

    Raises:
        TryAgain: nvidia-smi fails.
        ScepsyError: the GPUs are of another product, too small or too few.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603 - from PATH, no shell
            query,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TryAgain(f"cannot run nvidia-smi: {error}") from error
    rows = [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not rows or any(len(row) != 3 for row in rows):
        output = printable(" ".join((done.stderr or done.stdout).split()))[:300]
        raise TryAgain(f"nvidia-smi does not list the GPUs: {output or f'status {done.returncode}'}")
    for name, _, total in rows:
        label = re.sub(r"\s+", "-", name)
        if label != product:
            raise ScepsyError(
                f"the GPU is a {label}, not a {product}",
                "aborted: a profile is valid only for the GPU it was measured on",
            )
        # --memory comes from the Cluster document, where it may be rounded: the reserve of a card covers that.
        if memory is not None and total.isdecimal() and int(total) * MIB < memory - CARD_RESERVE:
            raise ScepsyError(f"the GPU has {int(total)} MiB, --memory is {memory // MIB} MiB")
    if len(rows) < tp:
        raise ScepsyError(f"TP {tp} needs {tp} GPUs, nvidia-smi lists {len(rows)}")
    return rows[0][1]
