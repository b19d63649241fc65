"""`imagefarm tenants list | limit`: the limits of tenants. The commands use the database directly."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from imagefarm.cli.output import AsJson, print_json, print_table
from imagefarm.cli.server.keys import limits_of, open_store, words_of


def register(app: typer.Typer) -> None:
    area = typer.Typer(help="Show tenants and their use, and set their limits.", no_args_is_help=True)
    area.command("list")(list_)
    area.command()(limit)
    app.add_typer(area, name="tenants")


def list_(as_json: AsJson = False) -> None:
    """List the tenants: their limits, their jobs in the queue, and the pictures they submitted today."""
    from imagefarm.tenants import tenants_in_use

    with open_store() as store, store.read() as session:
        tenants = tenants_in_use(session)
    if as_json:
        print_json([asdict(tenant) for tenant in tenants])
        return
    rows = (
        (one.name, f"{one.weight:g}", str(one.queued), str(one.running), str(one.images_today), words_of(one.limits))
        for one in tenants
    )
    print_table(("name", "weight", "queued", "running", "pictures today", "limits"), rows)


def limit(
    name: Annotated[str, typer.Argument(help="Name or id of the tenant.")],
    limits: Annotated[
        list[str],
        typer.Argument(
            metavar="LIMIT=VALUE",
            help="For example queued=1000: queued, running, images_per_day, pixels or steps. The value none removes a limit.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Set limits of a tenant; other limits stay. They apply to new submits and new claims."""
    from imagefarm.tenants import limit_tenant

    with open_store() as store:
        changed = limit_tenant(store, name, limits_of(limits, field="LIMIT=VALUE", may_remove=True))
    print_json(asdict(changed)) if as_json else print(f"{changed.name}: {words_of(changed.limits) or 'no limits of its own'}")
