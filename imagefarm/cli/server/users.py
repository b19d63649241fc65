"""`imagefarm users create | list | password | disable`: users who sign in. The commands use the database directly."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from imagefarm.cli.output import AsJson, print_json, print_table
from imagefarm.cli.server.keys import day, open_store
from imagefarm.errors import ConfigurationError

Name = Annotated[str, typer.Argument(help="Name of the user.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


def register(app: typer.Typer) -> None:
    area = typer.Typer(help="Users who sign in with a name and a password.", no_args_is_help=True)
    area.command()(create)
    area.command("list")(list_)
    area.command()(password)
    area.command()(disable)
    app.add_typer(area, name="users")


def create(
    name: Name,
    role: Annotated[
        str, typer.Option(help="viewer (read), member (read, submit), admin (of the tenant) or operator (of the farm).")
    ] = "member",
    tenant: Annotated[str, typer.Option(help="The user's tenant; a new tenant is created.")] = "default",
    password_stdin: FromStdin = False,
    as_json: AsJson = False,
) -> None:
    """Create a user; asks for the password."""
    from imagefarm.users import create_user

    given = _password(password_stdin)
    with open_store(may_migrate=True) as store:
        made = create_user(store, name=name, password=given, role=role, tenant=tenant)
    print_json(asdict(made)) if as_json else print(f"{made.name} ({made.role} of {made.tenant}) can sign in")


def list_(as_json: AsJson = False) -> None:
    """List the users."""
    from imagefarm.users import list_users

    with open_store() as store:
        users = list_users(store)
    if as_json:
        print_json([asdict(user) for user in users])
        return
    rows = (
        (user.name, user.role, user.tenant, day(user.created_at), day(user.last_sign_in_at), day(user.disabled_at))
        for user in users
    )
    print_table(("name", "role", "tenant", "created", "last sign-in", "disabled"), rows)


def password(name: Name, password_stdin: FromStdin = False) -> None:
    """Give a user a new password; their browsers are signed out."""
    from imagefarm.users import set_password

    given = _password(password_stdin)
    with open_store() as store:
        set_password(store, name, given)
    print(f"{name} has a new password and is signed out everywhere")


def disable(name: Name) -> None:
    """Disable a user; their browsers are signed out."""
    from imagefarm.users import disable_user

    with open_store() as store:
        disable_user(store, name)
    print(f"{name} is disabled and signed out everywhere")


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise ConfigurationError("no terminal to ask for the password on; use --password-stdin")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
