"""Why a measurement ends without a series: the shape does not run, the flags are wrong, or another attempt may help."""

from __future__ import annotations

from scepsy.errors import ScepsyError


class DoesNotRun(ScepsyError):
    """The shape cannot serve the model: a result, not a failure.

    Args:
        message: why.
        longest: tokens of the longest call that did not fit, if shorter ones might.
    """

    def __init__(self, message: str, longest: int | None = None) -> None:
        super().__init__(message)
        self.longest = longest


class NotUnderstood(ScepsyError):
    """vLLM does not accept its command line; another attempt cannot help."""


class TryAgain(ScepsyError):
    """A failure after which another attempt may succeed."""
