"""`scepsy schema`: the JSON Schemas of documents and results."""

from __future__ import annotations

import click

from scepsy.documents import PUBLISHED, did_you_mean, schema_text
from scepsy.errors import ScepsyError


@click.command("schema")
@click.argument("kind", required=False)
def command(kind: str | None) -> None:
    """Print the JSON Schema of KIND, or the list of kinds."""
    if kind is None:
        width = max(map(len, PUBLISHED))
        for name, model in PUBLISHED.items():
            click.echo(f"{name:{width}} {(model.__doc__ or '').strip().splitlines()[0]}")
        return
    names = {name.lower(): name for name in PUBLISHED}
    if kind.lower() not in names:
        raise ScepsyError(f'there is no kind "{kind}"', did_you_mean(kind, list(PUBLISHED)))
    click.echo(schema_text(names[kind.lower()]), nl=False)
