"""Addresses: where the recorder listens and which servers it forwards to, parsed from the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from scepsy.errors import ScepsyError

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port.

    Attributes:
        host: name or IP address, IPv6 without brackets.
        port: 0 to listen on any free port.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """An OpenAI-compatible server.

    Attributes:
        address: where it listens.
        tls: whether it speaks https.
    """

    address: Address
    tls: bool

    @property
    def authority(self) -> str:
        """What the Host header names: the port only where it is not the scheme's (RFC 9110, 4.2.3)."""
        text = str(self.address)
        return text.removesuffix(f":{_PORTS[self.scheme]}")

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return "https" if self.tls else "http"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The server of each LLM.

    Attributes:
        named: by the name that agents send as `model`.
        other: the server of all others, if there is one.
    """

    named: Mapping[str, Upstream]
    other: Upstream | None

    def of(self, model: str) -> Upstream | None:
        """Return the server of a model; None if there is none."""
        return self.named.get(model, self.other)

    @property
    def first(self) -> Upstream:
        """Where requests without a model go: the server of all others, else the first one named."""
        return self.other or next(iter(self.named.values()))


def parse_listen(text: str) -> Address:
    """Parse `HOST:PORT`; IPv6 addresses in brackets; port 0 means any free one.

    Raises:
        ScepsyError: the text has another form.
    """
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if _HOST.fullmatch(host) and bracketed == (":" in host) and re.fullmatch("[0-9]{1,5}", port) and int(port) < 65536:
        return Address(host, int(port))
    hint = "to listen on every address of this host, write 0.0.0.0" if text.startswith(":") else ""
    raise ScepsyError(f'cannot listen on "{text}": write HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080', hint)


def parse_upstreams(texts: Sequence[str]) -> Upstreams:
    """Parse `LLM=URL` and `URL`.

    Raises:
        ScepsyError: there is none, one is malformed, or two claim the same LLM.
    """
    named: dict[str, Upstream] = {}
    other: Upstream | None = None
    for text in texts:
        name, equals, url = text.partition("=")
        if not equals or "://" in name:  # the = belongs to the URL
            if other is not None:
                raise ScepsyError("two upstreams have no name", "give one of them a name: LLM=URL")
            other = _upstream(text)
        elif not name:
            raise ScepsyError("an upstream has an empty name", "write LLM=URL, or the URL alone for all other LLMs")
        elif name in named:
            raise ScepsyError(f'two upstreams are named "{name}"', "replicas need one address: a Service or a gateway")
        else:
            named[name] = _upstream(url)
    if not named and other is None:
        raise ScepsyError("no upstream given", "name the server to forward to: --upstream LLM=http://HOST:PORT")
    return Upstreams(named, other)


def _upstream(url: str) -> Upstream:
    """Parse a URL of scheme, host and port.

    A path is refused: requests are forwarded unchanged, with the path that the agent sends.
    """
    shown = re.sub(r"//.*@", "//…@", url)  # passwords must not appear in messages
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ScepsyError(f'upstream "{shown}" is not a URL: {error}', "write http://HOST:PORT") from error
    if parts.scheme not in _PORTS or not parts.hostname or not _HOST.fullmatch(parts.hostname) or port == 0:
        raise ScepsyError(f'upstream "{shown}" is not an http or https URL', "write http://HOST:PORT")
    if parts.username is not None or parts.password is not None:
        raise ScepsyError(f'upstream "{shown}" contains credentials', "let the agent send them: headers are forwarded")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        origin = f"{parts.scheme}://{parts.netloc}"
        hint = f"write {origin}, and put the path into the agent's base URL: requests keep their path"
        raise ScepsyError(f'upstream "{shown}" has a path, a query or a fragment', hint)
    return Upstream(Address(parts.hostname, port or _PORTS[parts.scheme]), parts.scheme == "https")
