"""`imagefarm keys create | list | revoke`: API keys, straight in the database, so that the first one can be made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from imagefarm.cli.output import AsJson, note, print_json, print_table

if TYPE_CHECKING:
    from imagefarm.store import Store


def register(app: typer.Typer) -> None:
    area = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
    area.command()(create)
    area.command("list")(list_)
    area.command()(revoke)
    app.add_typer(area, name="keys")


def create(
    name: Annotated[str, typer.Argument(help="Who or what it is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="submit, read or admin; may be repeated. Default: all.")] = None,
    tenant: Annotated[str, typer.Option(help="The tenant it belongs to, made if new.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once, and never again."""
    from imagefarm.auth import ALL_SCOPES, create_key

    with _store(may_migrate=True) as store:
        made = create_key(store, name=name, scopes=scope or sorted(ALL_SCOPES), tenant=tenant)
    if as_json:
        print_json({"key": made.key} | asdict(made.info))
    else:
        print(made.key)
        note(f"keep it: only its hash is stored. Scopes: {', '.join(made.info.scopes)}; revoke with {made.info.prefix}")


def list_(as_json: AsJson = False) -> None:
    """List the keys, without their secrets."""
    from imagefarm.auth import list_keys

    with _store() as store:
        keys = list_keys(store)
    if as_json:
        print_json([asdict(key) for key in keys])
        return
    rows = (
        (
            key.prefix,
            key.name,
            key.tenant,
            " ".join(key.scopes),
            _day(key.created_at),
            _day(key.last_used_at),
            _day(key.revoked_at),
        )
        for key in keys
    )
    print_table(("prefix", "name", "tenant", "scopes", "created", "last used", "revoked"), rows)


def revoke(key: Annotated[str, typer.Argument(help="Prefix or id of the key.")]) -> None:
    """Make a key useless from now on."""
    from imagefarm.auth import revoke_key

    with _store() as store:
        revoked = revoke_key(store, key)
    print(f"{revoked.prefix} ({revoked.name}) is revoked")


@contextmanager
def _store(*, may_migrate: bool = False) -> Iterator[Store]:
    from imagefarm.settings import load_settings
    from imagefarm.store import Store
    from imagefarm.store.migrate import check, current_revision, migrate

    store = Store(load_settings().database, pool_size=1)
    try:
        if may_migrate and current_revision(store) is None:  # the first key comes before the first start
            migrate(store)
        check(store)
        yield store
    finally:
        store.close()


def _day(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
