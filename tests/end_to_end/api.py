"""The API server, as plain objects: what tests need of it, with the warnings that clients usually hide."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import client, config

Object = dict[str, Any]
MANAGER = "scepsy-tests"


class ApiError(Exception):
    """The API server refused.

    Attributes:
        status: the HTTP status.
        message: its reason.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(f"{status}: {message}")


@dataclass(frozen=True)
class Answer:
    """What the API server said.

    Attributes:
        body: the object.
        warnings: what it warned of.
    """

    body: Object
    warnings: tuple[str, ...]


class Api:
    """One API server, seen through a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings, persist_config=False)
        # Loading knows every way to log in (tokens, certificates, programs); requests are then plain HTTP.
        made = client.ApiClient(settings)
        self._pool: urllib3.PoolManager = made.rest_client.pool_manager
        self._settings = settings
        self.server: str = settings.host
        self._path = cache(self._discover)

    def request(
        self, method: str, path: str, body: object = None, content: str = "application/json", **query: object
    ) -> Answer:
        """Send a request.

        Raises:
            ApiError: the answer is no success.
            OSError: there is no answer.
        """
        headers = {"Accept": "application/json", "Content-Type": content}
        # Asked for every time: a token that a program fetched is renewed here.
        headers |= {entry["key"]: entry["value"] for entry in self._settings.auth_settings().values()}
        url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body)
        try:
            response = self._pool.request(method, url, body=data, headers=headers, timeout=30, retries=False)
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionError(str(error)) from error
        text = response.data.decode()
        # A warning is `299 - "text"`.
        warnings = tuple(w.split(" ", 2)[2].strip('"') for w in response.headers.getlist("Warning"))
        if response.status >= 300:
            try:
                message = json.loads(text).get("message", text)
            except ValueError:
                message = text
            raise ApiError(response.status, message)
        return Answer(json.loads(text) if text.startswith(("{", "[")) else {"text": text}, warnings)

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Return an object, or None."""
        try:
            return self.request("GET", f"{self.path(api_version, kind, namespace)}/{name}").body
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, api_version: str, kind: str, namespace: str | None = None, **query: object) -> list[Object]:
        """Return all objects of a kind; with `labelSelector=…` some of them."""
        items = self.request("GET", self.path(api_version, kind, namespace), **query).body["items"]
        return [{"apiVersion": api_version, "kind": kind, **item} for item in items]

    def apply(self, item: Object, *, manager: str = MANAGER, dry_run: bool = False) -> Answer:
        """Apply an object on the server, with strict validation of fields; conflicts are ours."""
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        return self.request("PATCH", self.path_of(item), item, "application/apply-patch+yaml", **query)

    def merge(self, item: Object, patch: Object, subresource: str = "") -> Object:
        """Change some fields of an object."""
        path = self.path_of(item) + (f"/{subresource}" if subresource else "")
        return self.request("PATCH", path, patch, "application/merge-patch+json").body

    def delete(self, item: Object, **options: object) -> None:
        """Delete an object; that it is gone already is fine."""
        try:
            self.request("DELETE", self.path_of(item), options or None)
        except ApiError as error:
            if error.status != 404:
                raise

    def path_of(self, item: Object) -> str:
        """Return the path of an object."""
        metadata = item["metadata"]
        return f"{self.path(item['apiVersion'], item['kind'], metadata.get('namespace'))}/{metadata['name']}"

    def path(self, api_version: str, kind: str, namespace: str | None = None) -> str:
        """Return the path of a kind's objects; without a namespace, those of all."""
        plural, namespaced = self._path(api_version, kind)
        root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        return f"{root}/namespaces/{namespace}/{plural}" if namespaced and namespace else f"{root}/{plural}"

    def serves(self, api_version: str, kind: str) -> bool:
        """Tell whether there are objects of this kind."""
        try:
            self._path(api_version, kind)
        except (ApiError, LookupError):
            return False
        return True

    def _discover(self, api_version: str, kind: str) -> tuple[str, bool]:
        root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        for resource in self.request("GET", root).body["resources"]:
            if resource["kind"] == kind and "/" not in resource["name"]:
                return resource["name"], resource["namespaced"]
        raise LookupError(f"the API server has no {kind} in {api_version}")
