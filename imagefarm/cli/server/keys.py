"""`imagefarm keys create | list | rotate | revoke`: API keys. They use the database directly, so the first key needs no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from imagefarm.cli.output import AsJson, note, print_json, print_table
from imagefarm.errors import FieldError, InvalidRequest

if TYPE_CHECKING:
    from imagefarm.store import Store

UNIT_S = {"d": 86400.0, "h": 3600.0, "m": 60.0}
MAX_DIGITS = 20
"""Digits of a number that is parsed. `check_limit_names` reports a number that is too large with the limit's name."""


def register(app: typer.Typer) -> None:
    area = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)
    area.command()(create)
    area.command("list")(list_)
    area.command()(rotate)
    area.command()(revoke)
    app.add_typer(area, name="keys")


def create(
    name: Annotated[str, typer.Argument(help="Name of the key, for example its user.")],
    *,
    scope: Annotated[
        list[str] | None, typer.Option(help="submit, read, admin or farm; may be repeated. Default: submit and read.")
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Also manage the keys and users of its tenant.")] = False,
    farm_wide: Annotated[
        bool, typer.Option("--farm-wide", help="Everything, of every tenant: for the farm's operator. The first key is one.")
    ] = False,
    tenant: Annotated[str, typer.Option(help="The key's tenant; a new tenant is created.")] = "default",
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="A limit of this key alone, such as queued=100: queued, running, images_per_day, pixels or steps. Repeatable."
        ),
    ] = None,
    expires_in: Annotated[str | None, typer.Option(help="When it expires, as 90d, 12h or 30m. Default: never.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key. It is shown only once."""
    from imagefarm.auth import ADMIN_SCOPES, ALL_SCOPES, DEFAULT_SCOPES, create_key

    scopes = {*(scope or ([] if admin or farm_wide else DEFAULT_SCOPES))}
    scopes |= {*(ADMIN_SCOPES if admin else ()), *(ALL_SCOPES if farm_wide else ())}
    lifetime_s = _seconds(expires_in)
    with open_store(may_migrate=True) as store:
        made = create_key(
            store, name=name, scopes=sorted(scopes), tenant=tenant, limits=_key_limits(limit), expires_in_s=lifetime_s
        )
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
            day(key.expires_at),
            day(key.last_used_at),
            day(key.revoked_at),
        )
        for key in keys
    )
    print_table(("prefix", "name", "tenant", "scopes", "created", "expires", "last used", "revoked"), rows)


def rotate(
    key: Annotated[str, typer.Argument(help="Prefix or id of the key.")],
    grace: Annotated[float, typer.Option(help="Hours for which the old key still works.", min=0)] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Replace a key by a new one with the same scopes and limits, shown only once. The old key still works for a while."""
    from imagefarm.auth import rotate_key

    with open_store() as store:
        made = rotate_key(store, key, grace_s=grace * 3600)
    if as_json:
        print_json({"key": made.key} | asdict(made.info))
    else:
        print(made.key)
        note(f"keep it: only its hash is stored. The old key holds for {grace:g} h more")


def revoke(key: Annotated[str, typer.Argument(help="Prefix or id of the key.")]) -> None:
    """Revoke a key at once."""
    from imagefarm.auth import revoke_key

    with open_store() as store:
        revoked = revoke_key(store, key)
    print(f"{revoked.prefix} ({revoked.name}) is revoked")


def _seconds(text: str | None) -> float | None:
    """A lifetime as `90d` in seconds. Raises InvalidRequest."""
    if text is None:
        return None
    number, unit = text[:-1], text[-1:]
    if unit not in UNIT_S or not (number.isascii() and number.isdigit() and len(number) <= MAX_DIGITS):
        detail, remedy = f"{text[:20]!r} is not a lifetime", "write it as 90d, 12h or 30m"
        raise InvalidRequest([FieldError(field="--expires-in", detail=detail, remedy=remedy)])
    return int(number) * UNIT_S[unit]


def _key_limits(given: list[str] | None) -> dict[str, int]:
    """Limits of a key, from words like `queued=100`."""
    return {name: value for name, value in limits_of(given or [], field="--limit").items() if value is not None}


def limits_of(given: Iterable[str], *, field: str, may_remove: bool = False) -> dict[str, int | None]:
    """Limits from words such as `queued=100`; `may_remove` also accepts `queued=none`. Raises InvalidRequest naming `field`."""
    limits: dict[str, int | None] = {}
    for text in given:
        name, _, value = text.partition("=")
        if may_remove and value == "none":
            limits[name] = None
        elif value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS:
            limits[name] = int(value)
        else:
            remedy = "write it as queued=100" + (", or queued=none to remove it" if may_remove else "")
            raise InvalidRequest([FieldError(field=field, detail=f"{text[:80]!r} is not a limit", remedy=remedy)])
    return limits


def words_of(limits: Mapping[str, int]) -> str:
    """Limits as words such as `queued=100`."""
    return " ".join(f"{name}={value}" for name, value in limits.items())


@contextmanager
def open_store(*, may_migrate: bool = False) -> Iterator[Store]:
    """The store of the settings, closed after the block. `may_migrate` creates the tables in an empty database."""
    from imagefarm.settings import load_settings
    from imagefarm.store import Store
    from imagefarm.store.migrate import check, current_revision, migrate

    store = Store(load_settings().database, pool_size=1)
    try:
        if may_migrate and current_revision(store) is None:  # the first key is created before the first start
            migrate(store)
        check(store)
        yield store
    finally:
        store.close()


def day(seconds: float | None) -> str:
    """A time for a table, to the minute."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
