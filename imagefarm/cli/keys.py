"""`imagefarm keys create | list | rotate | revoke`: API keys, straight in the database, so that the first one can be made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from imagefarm.cli.output import AsJson, note, print_json, print_table
from imagefarm.errors import FieldError, InvalidRequest

if TYPE_CHECKING:
    from imagefarm.store import Store


def register(app: typer.Typer) -> None:
    area = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
    area.command()(create)
    area.command("list")(list_)
    area.command()(rotate)
    area.command()(revoke)
    app.add_typer(area, name="keys")


def create(
    name: Annotated[str, typer.Argument(help="Who or what it is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="submit, read or admin; may be repeated. Default: all.")] = None,
    tenant: Annotated[str, typer.Option(help="The tenant it belongs to, made if new.")] = "default",
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="A limit of this key alone, as queued=100: queued, running, images_per_day, pixels or steps. Repeatable."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once, and never again."""
    from imagefarm.auth import ALL_SCOPES, create_key

    with open_store(may_migrate=True) as store:
        made = create_key(store, name=name, scopes=scope or sorted(ALL_SCOPES), tenant=tenant, limits=_limits(limit))
    if as_json:
        print_json({"key": made.key} | asdict(made.info))
    else:
        print(made.key)
        note(f"keep it: only its hash is stored. Scopes: {', '.join(made.info.scopes)}; revoke with {made.info.prefix}")


def list_(as_json: AsJson = False) -> None:
    """List the keys, without their secrets."""
    from imagefarm.auth import list_keys

    with open_store() as store:
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
            day(key.created_at),
            day(key.last_used_at),
            day(key.revoked_at),
        )
        for key in keys
    )
    print_table(("prefix", "name", "tenant", "scopes", "created", "last used", "revoked"), rows)


def rotate(
    key: Annotated[str, typer.Argument(help="Prefix or id of the key.")],
    grace: Annotated[float, typer.Option(help="Hours for which the old key holds on.", min=0)] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Replace a key by a new one like it, shown this once; the old one holds on for a while."""
    from imagefarm.auth import rotate_key

    with open_store() as store:
        made = rotate_key(store, key, grace_s=grace * 3600)
    if as_json:
        print_json({"key": made.key} | asdict(made.info))
    else:
        print(made.key)
        note(f"keep it: only its hash is stored. The old key holds for {grace:g} h more")


def revoke(key: Annotated[str, typer.Argument(help="Prefix or id of the key.")]) -> None:
    """Make a key useless from now on."""
    from imagefarm.auth import revoke_key

    with open_store() as store:
        revoked = revoke_key(store, key)
    print(f"{revoked.prefix} ({revoked.name}) is revoked")


def _limits(given: list[str] | None) -> dict[str, int]:
    limits: dict[str, int] = {}
    for text in given or []:
        name, _, value = text.partition("=")
        if not value.isascii() or not value.isdigit():
            detail = f"{text[:80]!r} is not a limit"
            raise InvalidRequest([FieldError(field="--limit", detail=detail, remedy="write it like queued=100")])
        limits[name] = int(value)
    return limits


@contextmanager
def open_store(*, may_migrate: bool = False) -> Iterator[Store]:
    """The store of the settings, closed after the block; `may_migrate` makes an empty database ready."""
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


def day(seconds: float | None) -> str:
    """A time for a table, to the minute."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
