"""What every document has in common: strict models, names, and the apiVersion/kind/metadata header."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.alias_generators import to_camel

API_VERSION: Final = "scepsy.dev/v1alpha1"

T = TypeVar("T")
Items = Annotated[tuple[T, ...], Field(strict=False)]
"""A YAML sequence; a tuple inside, so that documents are immutable."""


class Model(BaseModel):
    """A strict, immutable part of a document: camelCase keys, unknown keys are errors, no silent conversions."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def plain(self) -> dict[str, Any]:
        """Return the document as it is written to YAML: plain data, camelCase keys, units, nothing unset or empty."""
        dumped: dict[str, Any] = _pruned(self.model_dump(mode="json", by_alias=True, exclude_none=True))
        return dumped


def _pruned(value: Any) -> Any:
    """Leave out empty mappings and lists: every field that may hold one has it as its default."""
    if isinstance(value, dict):
        kept = {key: _pruned(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in ({}, [])}
    return [_pruned(item) for item in value] if isinstance(value, list) else value


class Metadata(Model):
    """The header of a document."""

    name: KubernetesName
    """The document's name; unique among its kind, and part of Kubernetes object names."""


class FileMetadata(Model):
    """The header of a document whose name never reaches Kubernetes."""

    name: NodeName
    """The document's name, unique among its kind; dots are allowed."""


class Document(Model):
    """What every kind shares."""

    api_version: Literal["scepsy.dev/v1alpha1"]
    """The version of the format."""


def _pattern(pattern: str, what: str, maximum: int) -> Any:
    """Return a validator for a string that must match a pattern, with a message for people."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if len(value) > maximum:
            raise ValueError(f"{what} has at most {maximum} characters, this one has {len(value)}")
        if not compiled.fullmatch(value):
            raise ValueError(f"{value[:80]!r} is not {what}")
        return value

    return AfterValidator(check)


def text_like(pattern: str, what: str, maximum: int) -> tuple[Any, Any]:
    """Return the annotations of a string that must match a pattern: a validator and the schema that says the same."""
    return (
        _pattern(pattern, what, maximum),
        WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "maxLength": maximum}),
    )


_DNS = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_name = text_like(_DNS, "a Kubernetes name (lower-case letters, digits and '-', a letter or digit at both ends)", 40)
_model = text_like(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?", "a model id such as Qwen/Qwen3-8B", 120)
_instance = text_like(_DNS, "a Kubernetes name", 63)
_revision = text_like(r"[A-Za-z0-9][A-Za-z0-9._/-]*", "a Git revision of the model", 80)
_image = text_like(
    r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?(:[0-9]+)?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9._-]*)?(@sha256:[0-9a-f]{64})?",
    "a container image such as vllm/vllm-openai:v0.24.0@sha256:…",
    300,
)
_product = text_like(
    r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", "a GPU product as in the node label nvidia.com/gpu.product", 63
)
_uuid = text_like(r"(GPU|MIG)-[A-Za-z0-9-]+", "a GPU UUID such as GPU-3f2a…", 80)
_node = text_like(_DNS + r"(\." + _DNS + r")*", "a name of lower-case letters, digits, '-' and '.'", 253)
_version = text_like(r"[0-9]+(\.[0-9]+)*([-.+a-z0-9]*)", "a version such as 0.24.0", 40)
_day = text_like(r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])", "a day such as 2026-01-31", 10)

KubernetesName = Annotated[str, _name[0], _name[1]]
"""A DNS label short enough that object names can be derived from it."""
ModelId = Annotated[str, _model[0], _model[1]]
"""A model's id on a hub, or its directory name."""
InstanceName = Annotated[str, _instance[0], _instance[1]]
"""A DNS label."""
Revision = Annotated[str, _revision[0], _revision[1]]
"""A pinned revision of a model."""
Image = Annotated[str, _image[0], _image[1]]
"""A container image, best with a digest."""
Product = Annotated[str, _product[0], _product[1]]
"""A GPU product, a Kubernetes label value."""
GpuUuid = Annotated[str, _uuid[0], _uuid[1]]
"""A GPU's UUID as the driver reports it."""
NodeName = Annotated[str, _node[0], _node[1]]
"""A DNS subdomain, as Kubernetes nodes are named."""
Version = Annotated[str, _version[0], _version[1]]
"""A software version."""
Day = Annotated[str, _day[0], _day[1]]
"""A day, YYYY-MM-DD."""
Tokens = Annotated[float, Field(ge=0, le=10_000_000)]
"""A number of tokens, possibly a mean."""


def _path(value: Any) -> Any:
    if isinstance(value, str) and (value.startswith(("/", "~")) or "\\" in value or "\0" in value or not value.strip()):
        raise ValueError(f"{value[:80]!r} is not a relative path with '/' between its parts")
    return value


RelativePath = Annotated[str, BeforeValidator(_path), StringConstraints(min_length=1, max_length=500)]
"""A path with `/` between its parts, relative to what its field names; it may not leave the repository."""

Metadata.model_rebuild()
FileMetadata.model_rebuild()
