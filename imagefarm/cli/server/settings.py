"""`imagefarm settings`: each setting, its value and its origin."""

from __future__ import annotations

from typing import Any

import typer

from imagefarm.cli.output import AsJson, print_json, print_table
from imagefarm.settings import load_settings, redacted


def register(app: typer.Typer) -> None:
    app.command()(settings)


def settings(as_json: AsJson = False) -> None:
    """Show each setting, its value and its origin. Passwords are masked."""
    loaded = load_settings()
    origins = loaded.origins({})
    values = {name: _shown(value) for name, value in loaded.model_dump(mode="json").items()}
    if as_json:
        print_json({name: {"value": value, "origin": origins[name]} for name, value in values.items()})
        return
    meaning = {name: field.description or "" for name, field in type(loaded).model_fields.items()}
    print_table(
        ("setting", "value", "origin", "meaning"), ((name, values[name], origins[name], meaning[name]) for name in values)
    )


def _shown(value: Any) -> Any:
    return redacted(value) if isinstance(value, str) and "://" in value else value
