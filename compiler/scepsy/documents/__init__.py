"""The YAML that people write and the YAML that Scepsy writes.

Models of every kind, reading with positions, diagnostics, and canonical writing. Nothing here knows what the documents
are used for.
"""

from scepsy.documents.canonical_yaml import emit
from scepsy.documents.cluster import Cluster, Gpu, Node
from scepsy.documents.diagnostics import Diagnostic, DocumentError, Position, did_you_mean
from scepsy.documents.loading import KINDS, Loaded, load_file
from scepsy.documents.model import API_VERSION
from scepsy.documents.observed import ObservedCluster, ObservedWorkflow
from scepsy.documents.paths import PathEscapes, contained
from scepsy.documents.plan import Plan
from scepsy.documents.profile import Architecture, Profile, Series
from scepsy.documents.project import Project
from scepsy.documents.schema import PUBLISHED, schema, schema_text
from scepsy.documents.workflow import Llm, Objective, Workflow
from scepsy.documents.workspace import PROJECT_FILE, Workspace, digest, load_workspace

__all__ = [
    "API_VERSION",
    "KINDS",
    "PROJECT_FILE",
    "PUBLISHED",
    "Architecture",
    "Cluster",
    "Diagnostic",
    "DocumentError",
    "Gpu",
    "Llm",
    "Loaded",
    "Node",
    "Objective",
    "ObservedCluster",
    "ObservedWorkflow",
    "PathEscapes",
    "Plan",
    "Position",
    "Profile",
    "Project",
    "Series",
    "Workflow",
    "Workspace",
    "contained",
    "did_you_mean",
    "digest",
    "emit",
    "load_file",
    "load_workspace",
    "schema",
    "schema_text",
]
