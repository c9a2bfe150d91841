"""Groups of commands: what they list without an import is what the commands say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from tests.conftest import Scepsy

from scepsy.cli.lazy import LazyGroup
from scepsy.cli.main import command as root


def groups(group: LazyGroup = root) -> Iterator[LazyGroup]:  # type: ignore[assignment]
    yield group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, LazyGroup):
            yield from groups(command)


@pytest.mark.parametrize("group", list(groups()), ids=lambda group: group.name)
def test_a_group_lists_the_short_help_of_its_commands(group: LazyGroup) -> None:
    listed, imported = click.HelpFormatter(width=110), click.HelpFormatter(width=110)
    context = click.Context(group)
    group.format_commands(context, listed)
    click.Group.format_commands(group, context, imported)
    assert listed.getvalue() == imported.getvalue()


@pytest.mark.parametrize("group", list(groups()), ids=lambda group: group.name)
def test_a_command_has_the_name_under_which_it_is_listed(group: LazyGroup) -> None:
    context = click.Context(group)
    commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
    assert {name: command and command.name for name, command in commands.items()} == dict(
        zip(commands, commands, strict=True)
    )


def test_help_imports_no_command() -> None:
    code = "import sys; from scepsy.cli.main import command; command.main(['--help'], standalone_mode=False); "
    code += "print([m for m in sys.modules if m.startswith('scepsy.')], 'pydantic' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    modules = ["scepsy.cli", "scepsy.cli.exit_codes", "scepsy.cli.lazy", "scepsy.cli.main", "scepsy.errors"]
    loaded = printed.splitlines()[-1]
    assert all(f"'{module}'" in loaded for module in modules[:1])
    assert loaded.count("'scepsy.") == len(modules)
    assert loaded.endswith("False")


def test_an_unknown_command_is_a_usage_error(scepsy: Scepsy) -> None:
    ran = scepsy("profile", "measure")
    assert ran.code == 1
    assert "No such command 'measure'" in ran.err


def test_a_duration_that_is_none_is_an_error_of_its_option(scepsy: Scepsy) -> None:
    ran = scepsy("profile", "submit", "--timeout", "soon")
    assert ran.code == 1
    assert "Invalid value for '--timeout': \"soon\" is not a duration" in ran.err
