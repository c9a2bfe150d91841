"""Samples from a Prometheus, or anything with its HTTP API (Thanos, Mimir, VictoriaMetrics).

Two queries of https://prometheus.io/docs/prometheus/latest/querying/api/: `query` with a range selector, which gives
the samples as they were scraped, and `query_range`, which gives the last one before each step. Rates are never asked
for: `rate()` extrapolates, and hides resets and gaps.

The token goes to the address that was given and nowhere else: redirects are not followed. It is in no message.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

from scepsy.documents.diagnostics import printable
from scepsy.drift.counters import Samples, samples
from scepsy.errors import ScepsyError
from scepsy.remote_api.credentials import check_encrypted, read_token
from scepsy.remote_api.network_errors import describe, is_tls
from scepsy.remote_api.retry import ATTEMPTS, CLOCK, Backoff, Clock, is_transient, retry_after

TOKEN, TOKEN_FILE = "PROMETHEUS_TOKEN", "PROMETHEUS_TOKEN_FILE"
"""Environment variables that hold the bearer token, or the path of a file with it (which may be renewed)."""
CA_FILE = "PROMETHEUS_CA_FILE"
"""Environment variable with the path of the certificates that sign Prometheus's own, where the system does not."""
STEPS = 10_000
"""Points per series of a `query_range`; Prometheus refuses more than 11,000."""
_TIMEOUT = (5.0, 60.0)
_MOST = 512 << 20


class PrometheusError(ScepsyError):
    """Prometheus cannot be asked, or does not answer as one does."""


class Partial(PrometheusError):
    """Prometheus answered, but says itself that the answer is not whole."""


@dataclass(frozen=True)
class Access:
    """How a Prometheus is reached.

    Attributes:
        url: its address, such as `https://prometheus.example.com/prefix`.
        token: a bearer token; None for none.
        ca: path of a file of certificates to trust; the system's if None.
    """

    url: str
    token: str | None = None
    ca: str | None = None

    def __repr__(self) -> str:
        return f"Access({self.url!r})"


def access_of(url: str, environment: Mapping[str, str] = os.environ) -> Access:
    """Return how to reach a Prometheus, the token from the environment or from a file that it names.

    Raises:
        PrometheusError: the address is invalid.
        CredentialError: the token cannot be read, is invalid, or would be sent over plain HTTP.
    """
    parts = _parts(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise PrometheusError(
            f"{_bare(url)} is not the address of a Prometheus", "write https://prometheus.example.com"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise PrometheusError(
            "the address of Prometheus must not contain credentials or a query",
            f"put the token into {TOKEN}, or its file's path into {TOKEN_FILE}",
        )
    token = read_token(environment, TOKEN, TOKEN_FILE)
    if token is not None:
        check_encrypted(parts.scheme, parts.hostname)
    address = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    return Access(address, token, environment.get(CA_FILE) or None)


def _parts(url: str) -> SplitResult | None:
    """Return the parts of an address, over HTTP where it does not say; None if it is none."""
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        _ = parts.port  # whether it is a port shows when it is asked for
    except ValueError:
        return None
    return parts


def _bare(url: str) -> str:
    """Return an address as it may be shown: what stands before an @ may be a password."""
    return f'"{printable(url.rpartition("@")[2])[:100]}"'


class Prometheus:
    """A Prometheus.

    Args:
        access: how it is reached.
        clock: the clock for retries.

    Raises:
        PrometheusError: the file of certificates cannot be read.
    """

    def __init__(self, access: Access, clock: Clock = CLOCK) -> None:
        # urllib3 is what the Kubernetes client speaks HTTP with, so it is there already. It verifies certificates, and
        # need not follow redirects.
        import urllib3  # noqa: PLC0415 - slow to import

        self._access, self._clock = access, clock
        self.place = f"Prometheus at {access.url}"
        if access.ca is not None and not Path(access.ca).is_file():
            raise PrometheusError(f"there is no file {access.ca}, which {CA_FILE} names")
        timeout = urllib3.Timeout(connect=_TIMEOUT[0], read=_TIMEOUT[1])
        self._pool = urllib3.PoolManager(timeout=timeout, retries=False, ca_certs=access.ca, cert_reqs="CERT_REQUIRED")
        self._headers = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "scepsy"}
        if access.token is not None:
            self._headers["Authorization"] = f"Bearer {access.token}"

    def now(self) -> float:
        """Return the time by Prometheus's own clock, which its samples go by.

        Raises:
            PrometheusError: it cannot be asked.
        """
        data = self._ask("query", {"query": "time()"})
        try:
            return float(data["result"][1])
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise self._strange("no time") from error

    def raw(self, selector: str, end: float, seconds: int) -> list[Samples]:
        """Return all samples of the last seconds before `end`, as they were scraped.

        Raises:
            PrometheusError: it cannot be asked, or the answer is not whole.
        """
        data = self._ask("query", {"query": f"{selector}[{int(seconds)}s]", "time": f"{end:.3f}"})
        return self._matrix(data)

    def history(self, selector: str, start: float, end: float, step: int) -> list[Samples]:
        """Return the last sample before every step between two times; none where the series had gone stale.

        Raises:
            PrometheusError: it cannot be asked, or the answer is not whole.
        """
        if end <= start:
            return []
        query = {"query": selector, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": str(int(step))}
        return self._matrix(self._ask("query_range", query))

    def _matrix(self, data: Mapping[str, Any]) -> list[Samples]:
        if data.get("resultType") != "matrix" or not isinstance(data.get("result"), list):
            raise self._strange("no matrix")
        try:
            return [
                samples(
                    {str(k): str(v) for k, v in series["metric"].items() if k != "__name__"},
                    ((float(at), float(value)) for at, value in series.get("values", ())),
                )
                for series in data["result"]
            ]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise self._strange("no samples") from error

    def _ask(self, what: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Ask, a few times where the failure may pass.

        Raises:
            PrometheusError: it cannot be asked, or the answer is not whole.
        """
        url = f"{self._access.url}/api/v1/{what}?{urlencode(query)}"
        backoff = Backoff(self._clock, ATTEMPTS)
        while True:
            try:
                return self._once(url)
            except _Transient as error:
                delay = backoff.delay(error.retry_after)
                if delay is None:
                    raise PrometheusError(error.message, error.hint) from None
                self._clock.sleep(delay)

    def _once(self, url: str) -> dict[str, Any]:
        import urllib3  # noqa: PLC0415 - slow to import

        try:
            answer = self._pool.request("GET", url, headers=self._headers, redirect=False, preload_content=False)
            status, headers = answer.status, answer.headers
            try:
                body = answer.read(_MOST + 1, decode_content=True)
            finally:
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise self._network(error) from None
        if len(body) > _MOST:
            raise PrometheusError(
                f"the response of {self.place} has more than {_MOST >> 20} MiB", "choose a shorter --window"
            )
        said = _said(body)
        match status:
            case 401:
                raise PrometheusError(
                    f"{self.place} rejected the credentials (401){said}",
                    f"put a token into {TOKEN}, or its file's path into {TOKEN_FILE}",
                )
            case 403:
                raise PrometheusError(
                    f"forbidden: the credentials cannot read metrics on {self.place} (403){said}",
                    "ask for the permission to query it; behind kube-rbac-proxy that is get on the service's proxy",
                )
            case 404:
                raise PrometheusError(
                    f"{self.place} has no Prometheus API (404)",
                    "check for a path prefix, such as /prometheus",
                )
        if is_transient(status):
            message = f"{self.place} keeps failing with {status}{said}"
            raise _Transient(message, "try again later", retry_after(headers))
        if 300 <= status < 400:
            raise PrometheusError(
                f"{self.place} redirects ({status}); tokens are not sent along redirects",
                "use the address that it redirects to: often https:// instead of http://, or a login page",
            )
        return self._document(status, body, said)

    def _document(self, status: int, body: bytes, said: str) -> dict[str, Any]:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise self._strange("no JSON") from None
        answered = isinstance(answer, dict) and answer.get("status") == "success"
        if not answered or not isinstance(answer.get("data"), dict):
            raise PrometheusError(
                f"{self.place} rejected the query ({status}){said}", "check that the address is that of a Prometheus"
            )
        warnings = answer.get("warnings")
        if warnings:
            first = _shown(str(warnings[0] if isinstance(warnings, list) else warnings))
            raise Partial(f"{self.place} returned partial data: {first}", "wait until all its stores respond")
        data: dict[str, Any] = answer["data"]
        return data

    def _network(self, error: Exception) -> Exception:
        if is_tls(error):
            return PrometheusError(
                f"cannot connect to {self.place}: {describe(error)}",
                f"set {CA_FILE} to a file with the certificates of its CA",
            )
        hint = "check the address, and the network (VPN, kubectl port-forward)"
        return _Transient(f"cannot connect to {self.place}: {describe(error)}", hint)

    def _strange(self, what: str) -> PrometheusError:
        return PrometheusError(f"{self.place} is not a Prometheus (unexpected response: {what})", "check the address")


class _Transient(Exception):
    """A failure after which the query is sent again."""

    def __init__(self, message: str, hint: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.message, self.hint, self.retry_after = message, hint, retry_after


def _said(body: bytes) -> str:
    """Return what Prometheus says of a failure."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return f": {_shown(str(answer['error']))}" if isinstance(answer, dict) and answer.get("error") else ""


def _shown(text: str) -> str:
    shown = printable(" ".join(text.split()))
    return shown if len(shown) <= 300 else shown[:300] + "…"


def selector(metric: str, matchers: Mapping[str, str], any_of: tuple[str, Sequence[str]] | None = None) -> str:
    """Return a selector of series: `metric{label="value",…,other=~"a|b"}`.

    Args:
        metric: its name.
        matchers: labels and their values; an empty value stands for a label that is not there.
        any_of: a label and the values that it may have: names without characters that mean something in a pattern.
    """
    parts = [f"{label}={_quoted(value)}" for label, value in matchers.items()]
    if any_of is not None:
        parts.append(f"{any_of[0]}=~{_quoted('|'.join(any_of[1]))}")
    return f"{metric}{{{','.join(parts)}}}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
