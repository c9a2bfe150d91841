"""The options of a drift check as text, and their parsed values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scepsy.documents.units import option_duration
from scepsy.drift.collector import Settings
from scepsy.errors import ScepsyError

_RATE = re.compile(r"(?P<count>[0-9]+(?:\.[0-9]+)?)\s*(?:/|per)\s*(?P<time>.+)")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ARGO_CD = "argocd"
"""Default namespace of Applications."""
_LONGEST = 60
"""Characters of a wrong value that a message repeats."""


@dataclass(frozen=True)
class Options:
    """The options as given.

    Attributes:
        project: directory with `scepsy.yaml`.
        cluster: the cluster; the only one if None.
        prometheus: address of the Prometheus; None for none.
        match: `label=value` of its series.
        window: how long before now is read at full scrape resolution.
        false_alarm_rate: accepted false alarms: a number and a time.
        low_load_after: how long a value must be too low, or `never`.
        older: how old a profile may be.
        context: a context of the kubeconfig; None for the pod's cluster, if this is a pod.
        application: the Argo CD Application, `namespace/name` or `name`.
    """

    project: Path
    cluster: str | None = None
    prometheus: str | None = None
    match: Sequence[str] = ()
    window: str = "1h"
    false_alarm_rate: str = "1/10000h"
    low_load_after: str = "24h"
    older: str | None = None
    context: str | None = None
    application: str | None = None

    def settings(self) -> Settings:
        """Return what counts as a change of traffic.

        Raises:
            ScepsyError: an option is wrong.
        """
        return Settings(_false_alarm_rate(self.false_alarm_rate), _low_load_after(self.low_load_after))

    def window_seconds(self) -> int:
        """Return the window in seconds.

        Raises:
            ScepsyError: the option is wrong.
        """
        seconds = option_duration(self.window, "--window")
        if not 900 <= seconds <= 86400:
            raise ScepsyError(f"--window: {self.window} is too {'short' if seconds < 900 else 'long'}", "15min to 24h")
        return int(seconds)

    def oldest_days(self) -> int | None:
        """Return how many days old a profile may be; None for no limit.

        Raises:
            ScepsyError: the option is wrong.
        """
        if self.older is None:
            return None
        seconds = option_duration(self.older, "--profiles-older-than")
        if not seconds:
            raise ScepsyError(f"--profiles-older-than: {self.older} is too short", "write 30min, 24h or 90d")
        return int(seconds // 86400)

    def matchers(self) -> Mapping[str, str]:
        """Return labels and values of series.

        Raises:
            ScepsyError: an option is wrong.
        """
        matchers = {}
        for text in self.match:
            label, equals, value = text.partition("=")
            if not equals or not _LABEL.fullmatch(label):
                message = f'--match: "{text[:_LONGEST]}" is not LABEL=VALUE'
                raise ScepsyError(message, "write cluster=prod-eu")
            matchers[label] = value
        return matchers

    def application_name(self) -> tuple[str, str] | None:
        """Return namespace and name of the Argo CD Application, if one is given."""
        if self.application is None:
            return None
        namespace, _, name = self.application.rpartition("/")
        return namespace or _ARGO_CD, name


def _low_load_after(text: str) -> int | None:
    """Return minutes; None for never."""
    if text.strip() == "never":
        return None
    seconds = option_duration(text, "--low-load-after")
    if not 900 <= seconds <= 86400:
        message = f"--low-load-after: {text} is too {'short' if seconds < 900 else 'long'}"
        raise ScepsyError(message, "15min to 24h, or never")
    return int(seconds // 60)


def _false_alarm_rate(text: str) -> float:
    """Return false alarms per hour."""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        message = f'--false-alarm-rate: "{text[:_LONGEST]}" is not a number of false alarms per time'
        raise ScepsyError(message, "write 1/1000h, or 1 per 365d")
    hours = option_duration(match["time"], "--false-alarm-rate", math.inf) / 3600
    rate = float(match["count"]) / hours if hours else math.inf
    if not 1e-12 <= rate <= 0.1:
        message = f"--false-alarm-rate: {text[:_LONGEST]} is too {'high' if rate > 0.1 else 'low'}"
        raise ScepsyError(message, "at most 1/10h")
    return rate
