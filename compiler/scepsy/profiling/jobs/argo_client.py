"""The cluster as far as profiling jobs need it: create, get and list Workflows, through Kubernetes or an argo-server.

Both clients are imported only here and only when they are needed. Transient failures are retried within bounds; all
others become errors with the request and the server. No token is ever part of a message.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from scepsy.cluster.connection import Unreachable, configuration, is_object, page_of, place, server_message
from scepsy.errors import ScepsyError
from scepsy.profiling.jobs.workflow import TEMPLATE
from scepsy.remote_api.credentials import check_encrypted, checked_token
from scepsy.remote_api.network_errors import describe, excerpt, is_tls
from scepsy.remote_api.retry import CLOCK, UNREACHED_DEADLINE, Backoff, Clock, is_transient, retry_after

GROUP, VERSION = "argoproj.io", "v1alpha1"
INSTALL = "a cluster's administrator installs it as gitops/README.md says: kubectl apply --server-side -k FOLDER"
"""What to do where Argo's objects, the namespace or the template of profiling jobs are missing."""

PATIENCE = 60.0
"""Seconds for which a server that was reached before is tried: jobs run for hours, and outlive a restart of it."""
_REPORTED = 4
"""After so many failed attempts, about 3.5 s, the outage is reported."""
_TIMEOUT = (5.0, 30.0)
_PAGE = 50

Object = dict[str, Any]


@dataclass(frozen=True)
class _Fault:
    """What went wrong with a request.

    Attributes:
        status: the HTTP status; 0 where there was no answer.
        message: text from the server or the network.
        after: seconds after which the server asks for a retry.
        transient: whether a retry may succeed.
        foreign: whether the response is not from such a server.
    """

    status: int
    message: str
    after: float = 0.0
    transient: bool = False
    foreign: bool = False

    def __str__(self) -> str:
        what = f"answers {self.status}" if self.status else "answers oddly" if self.foreign else "is unreachable"
        return f"{what}: {self.message}" if self.message else what


class Jobs(ABC):
    """Workflows of a cluster.

    Attributes:
        kind: what the server is.
        place: the server, for messages.
        patience: seconds for which a failing server that was reached before is tried.
        say: gets a line when that takes long.

    Args:
        place: the server.
        clock: gives the time, and waits.
    """

    kind: str

    def __init__(self, place: str, clock: Clock) -> None:
        self.place = place
        self.patience = PATIENCE
        self.say: Callable[[str], None] = lambda line: None
        self._clock = clock
        self._reached = False

    def create(self, namespace: str, workflow: Object, *, dry_run: bool = False) -> bool:
        """Create a Workflow.

        Args:
            namespace: where.
            workflow: the object.
            dry_run: the server checks it, and creates nothing.

        Returns:
            Whether it was created; False if one of that name exists.

        Raises:
            ScepsyError: the server refuses it, or cannot be reached.
        """
        wish = _Wish("create", "workflows", namespace)
        return self._one(wish, lambda: self._create(namespace, workflow, dry_run), expected=409) is not None

    def get(self, namespace: str, name: str) -> Object | None:
        """Return a Workflow; None if no such Workflow exists.

        Raises:
            ScepsyError: the server refuses, or cannot be reached.
        """
        return self._one(_Wish("get", "workflows", namespace), lambda: self._get(namespace, name), expected=404)

    def find(self, namespace: str, selector: str) -> list[Object]:
        """Return the Workflows with certain labels, by name.

        Raises:
            ScepsyError: the server refuses, or cannot be reached.
        """
        wish = _Wish("list", "workflows", namespace)
        for _ in range(5):
            workflows: list[Object] = []
            following = ""
            while True:
                answer = self._ask(wish, lambda at=following: self._list(namespace, selector, at), expected=410)  # type: ignore[misc]
                if answer is None:
                    break  # reading all pages took too long: start again
                page = page_of(answer)
                if page is None:
                    raise self._error(wish, _Fault(0, "the response is not a list", foreign=True))
                items, following = page
                workflows += items
                if not following:
                    return sorted(workflows, key=lambda item: str(item["metadata"]["name"]))
        raise Unreachable(f"{self.place} cannot list Workflows: the list expires while it is read", "try again")

    def check_installed(self, namespace: str) -> None:
        """Check that the WorkflowTemplate is there: without it, a Workflow would be taken and fail.

        Raises:
            ScepsyError: it is not, the server refuses, or cannot be reached.
        """
        wish = _Wish("get", "workflowtemplates", namespace)
        if self._one(wish, lambda: self._template(namespace), expected=404) is None:
            raise ScepsyError(
                f"there is no WorkflowTemplate {TEMPLATE} in namespace {namespace} of {self.place}", INSTALL
            )

    @abstractmethod
    def _create(self, namespace: str, workflow: Object, dry_run: bool) -> Any: ...

    @abstractmethod
    def _get(self, namespace: str, name: str) -> Any: ...

    @abstractmethod
    def _list(self, namespace: str, selector: str, following: str) -> Any: ...

    @abstractmethod
    def _template(self, namespace: str) -> Any: ...

    @abstractmethod
    def _refused(self) -> str:
        """Say what to do about credentials that are not accepted."""

    def _one(self, wish: _Wish, request: Callable[[], Any], expected: int) -> Object | None:
        """Make a request for an object; return as `_ask` does."""
        answer = self._ask(wish, request, expected)
        if answer is not None and not is_object(answer):
            raise self._error(wish, _Fault(0, "the response has no object with a name", foreign=True))
        return answer

    def _ask(self, wish: _Wish, request: Callable[[], Any], expected: int) -> Object | None:
        """Make a request until it succeeds, fails for good, or patience ends.

        Returns:
            The answer; None where the server answers with the status that the caller expects.
        """
        backoff = Backoff(self._clock)
        while True:
            fault: _Fault | None = None
            try:
                answer = request()
                if isinstance(answer, dict):
                    self._reached = True
                    return answer
                fault = _Fault(0, "the response is not a JSON object", transient=True, foreign=True)
            except Exception as error:
                fault = _fault(error)
                if fault is None:
                    raise
            if fault.status:
                self._reached = True
            if fault.status == expected and not (expected == 404 and _is_foreign(fault)):
                return None
            delay = backoff.delay(fault.after, self.patience if self._reached else UNREACHED_DEADLINE)
            if not fault.transient or delay is None:
                raise self._error(wish, fault)
            if backoff.failed == _REPORTED:
                self.say(f"{self.place} {fault}; retrying")
            self._clock.sleep(delay)

    def _error(self, wish: _Wish, fault: _Fault) -> ScepsyError:
        detail = f": {fault.message}" if fault.message else ""
        if fault.foreign:
            return Unreachable(
                f'{self.place} is not {self.kind} (unexpected response to "{wish}"){detail}',
                "is the address right? a proxy, a login page or another service may answer in its place",
            )
        match fault.status:
            case 401:
                return ScepsyError(f"{self.place} rejected the credentials (401){detail}", self._refused())
            case 403:
                return ScepsyError(
                    f"forbidden: the credentials cannot {wish} on {self.place} (403){detail}",
                    f"ask for the permission to {wish}; the Role scepsy-submit in gitops/profiling has all that are "
                    "needed",
                )
            case 404:
                missing = "Argo Workflows is not installed" if _is_foreign(fault) else "something is missing"
                return ScepsyError(f"{missing} on {self.place}, at least not for {wish} (404){detail}", INSTALL)
        if fault.transient:
            return Unreachable(
                f"{self.place} cannot be reached{detail}"
                if not fault.status
                else f"{self.place} keeps failing with {fault.status}{detail}",
                "check the address and the network (VPN, port-forward), then re-run the command"
                if not fault.status
                else "re-run the command later: submitted jobs continue",
            )
        return ScepsyError(f"{self.place} does not {wish}" + (f" ({fault.status})" if fault.status else "") + detail)


@dataclass(frozen=True)
class _Wish:
    """A request, in the terms of a Role."""

    verb: str
    resource: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}.{GROUP} in namespace {self.namespace}"


def _is_foreign(fault: _Fault) -> bool:
    """Tell a 404 of a server that does not know the kind, or the namespace, from one of an object that is not there."""
    text = fault.message
    return "page not found" in text or "could not find the requested resource" in text or "namespaces " in text


def _fault(error: Exception) -> _Fault | None:
    """Return what an exception of a client means; None if it is not about the request."""
    import urllib3  # noqa: PLC0415 - with the clients

    # argo-workflows reads the body of a response that has none.
    if isinstance(error, AttributeError) and error.__context__ is not None and hasattr(error.__context__, "status"):
        error = error.__context__  # type: ignore[assignment]
    status = getattr(error, "status", None)
    if isinstance(status, int) and hasattr(error, "body"):
        if status == 0:
            return _Fault(0, excerpt(str(getattr(error, "reason", ""))))
        headers = getattr(error, "headers", None) or {}
        return _Fault(status, server_message(getattr(error, "body", None)), retry_after(headers), is_transient(status))
    if isinstance(error, urllib3.exceptions.HTTPError):
        return _Fault(0, describe(error), transient=not is_tls(error))
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
        return _Fault(0, "the response is not a JSON object", transient=True, foreign=True)
    if isinstance(error, OSError):
        return _Fault(0, describe(error), transient=True)
    return None


class KubernetesJobs(Jobs):
    """Workflows through the Kubernetes API alone.

    Args:
        context: a context of the kubeconfig; None for its current one, or the pod's account without a file.
        clock: gives the time, and waits.

    Raises:
        ScepsyError: there is no such context, or no configuration.
    """

    kind = "a Kubernetes API server"

    def __init__(self, context: str | None = None, clock: Clock = CLOCK) -> None:
        from kubernetes import client  # noqa: PLC0415 - slow to import

        settings = configuration(
            context, "set KUBECONFIG, or name an argo-server with --argo-server and its token in ARGO_TOKEN"
        )
        settings.retries = False  # retried here, for both clients alike
        super().__init__(place(settings.host), clock)
        self._api = client.CustomObjectsApi(client.ApiClient(settings))

    def _create(self, namespace: str, workflow: Object, dry_run: bool) -> Any:
        more: Any = {"dry_run": "All"} if dry_run else {}
        return self._api.create_namespaced_custom_object(
            GROUP, VERSION, namespace, "workflows", workflow, _request_timeout=_TIMEOUT, **more
        )

    def _get(self, namespace: str, name: str) -> Any:
        return self._api.get_namespaced_custom_object(
            GROUP, VERSION, namespace, "workflows", name, _request_timeout=_TIMEOUT
        )

    def _list(self, namespace: str, selector: str, following: str) -> Any:
        more: Any = {"_continue": following} if following else {}
        return self._api.list_namespaced_custom_object(
            GROUP,
            VERSION,
            namespace,
            "workflows",
            label_selector=selector,
            limit=_PAGE,
            _request_timeout=_TIMEOUT,
            **more,
        )

    def _template(self, namespace: str) -> Any:
        return self._api.get_namespaced_custom_object(
            GROUP, VERSION, namespace, "workflowtemplates", TEMPLATE, _request_timeout=_TIMEOUT
        )

    def _refused(self) -> str:
        return "log in again, or name another context of the kubeconfig with --context"


class ArgoJobs(Jobs):
    """Workflows through an argo-server.

    Args:
        url: its address; https if it has no scheme.
        token: as `argo auth token` prints it; None for none.
        clock: gives the time, and waits.

    Raises:
        ScepsyError: the address or the token is invalid, or the token would be sent over plain HTTP.
    """

    kind = "an argo-server"

    def __init__(self, url: str, token: str | None, clock: Clock = CLOCK) -> None:
        from argo_workflows import ApiClient, Configuration  # noqa: PLC0415 - slow to import
        from argo_workflows.api import workflow_service_api, workflow_template_service_api  # noqa: PLC0415
        from argo_workflows.model.io_argoproj_workflow_v1alpha1_workflow_create_request import (  # noqa: PLC0415
            IoArgoprojWorkflowV1alpha1WorkflowCreateRequest,
        )

        checked = _checked_url(url, token)
        configuration = Configuration(host=checked)
        configuration.retries = False  # retried here, for both clients alike
        super().__init__(f"argo-server {place(checked)}", clock)
        client = ApiClient(configuration)
        if token:
            scheme = "" if token.startswith(("Bearer ", "Basic ")) else "Bearer "
            client.set_default_header("Authorization", scheme + token)
        self._workflows = workflow_service_api.WorkflowServiceApi(client)
        self._creation = IoArgoprojWorkflowV1alpha1WorkflowCreateRequest
        self._templates = workflow_template_service_api.WorkflowTemplateServiceApi(client)
        self._more: dict[str, Any] = {
            # Argo 4 has fields that the client does not know: taken as they are.
            "_preload_content": False,
            "_request_timeout": _TIMEOUT,
        }

    def _create(self, namespace: str, workflow: Object, dry_run: bool) -> Any:
        more = {"server_dry_run": True} if dry_run else {}
        body = self._creation(namespace=namespace, workflow=workflow, _check_type=False, **more)
        return _parsed(self._workflows.create_workflow(namespace, body, **self._more).data)

    def _get(self, namespace: str, name: str) -> Any:
        return _parsed(self._workflows.get_workflow(namespace, name, **self._more).data)

    def _list(self, namespace: str, selector: str, following: str) -> Any:
        more = {"list_options_continue": following} if following else {}
        answer = self._workflows.list_workflows(
            namespace, list_options_label_selector=selector, list_options_limit=str(_PAGE), **more, **self._more
        )
        return _parsed(answer.data)

    def _template(self, namespace: str) -> Any:
        return _parsed(self._templates.get_workflow_template(namespace, TEMPLATE, **self._more).data)

    def _refused(self) -> str:
        return "set ARGO_TOKEN to what `argo auth token` prints, or to a token of the account scepsy-submit"


def _parsed(body: bytes) -> Any:
    """Return the value of a JSON text; None if it is invalid, or nested too deeply to be read."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _checked_url(url: str, token: str | None) -> str:
    full = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(full)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise ScepsyError("--argo-server: not the address of a server", "write it as https://argo.example.com:2746")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ScepsyError(
            "--argo-server: the address must not contain a password or a query", "put the token into ARGO_TOKEN"
        )
    if token:
        checked_token(token.removeprefix("Bearer ").removeprefix("Basic "), "ARGO_TOKEN")
        check_encrypted(parts.scheme, host)
    return full.rstrip("/")


def connect(context: str | None = None, argo_server: str | None = None) -> Jobs:
    """Return the cluster's Workflows; nothing is asked of it yet.

    Args:
        context: a context of the kubeconfig.
        argo_server: address of an argo-server; its token is in the environment variable ARGO_TOKEN. Without either,
            ARGO_SERVER names one, as for the command `argo`.

    Raises:
        ScepsyError: there is no such context or address.
    """
    if context is not None and argo_server is not None:
        raise ScepsyError("--context and --argo-server exclude each other", "name one of them")
    server = argo_server or (os.environ.get("ARGO_SERVER") if context is None else None)
    if server:
        return ArgoJobs(server, os.environ.get("ARGO_TOKEN") or None)
    return KubernetesJobs(context)
