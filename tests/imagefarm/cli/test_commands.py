"""The command line without a farm: settings, migrations, keys, audit, and how errors end it."""

from __future__ import annotations

import csv
import io
import json
import socket
import sys
from pathlib import Path

import pytest
from sqlalchemy import update

from imagefarm import Client, __version__, cli
from imagefarm.cli.server.audit import csv_cell
from imagefarm.cli.server.model_files import wanted_files
from imagefarm.store import Store
from imagefarm.store.models import Event
from tests.api.farm_api import FarmApi


class Outcome:
    """What a command wrote, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class Command:
    """Runs the command line in this process, as its entry point does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *words: str | Path) -> Outcome:
        self.monkeypatch.setattr(sys, "argv", ["imagefarm", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Outcome(code, *self.capsys.readouterr())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, settings: object) -> Command:
    """The command line in an empty folder, with a data folder of the test's own."""
    monkeypatch.setenv("IMAGEFARM_DATA_DIR", str(tmp_path / "data"))
    return Command(monkeypatch, capsys)


def test_settings_show_value_and_origin_and_no_password(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("imagefarm.toml").write_text("lease_s = 45\n")
    monkeypatch.setenv("IMAGEFARM_DATABASE_URL", "postgresql://farm:s3cret@db/farm")
    shown = json.loads(run("settings", "--json").out)
    assert shown["lease_s"] == {"value": 45.0, "origin": "imagefarm.toml"}
    assert shown["database_url"] == {"value": "postgresql://farm:***@db/farm", "origin": "environment IMAGEFARM_DATABASE_URL"}
    table = run("settings").out
    assert "s3cret" not in table
    assert "imagefarm.toml" in table


def test_version(run: Command) -> None:
    assert run("version").out.strip() == __version__


def test_a_wrong_setting_ends_with_one_line(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEFARM_PORT", "99999")
    for command in ("up", "api", "settings", "migrate"):
        outcome = run(command)
        assert outcome.code == 3
        assert outcome.err.startswith("imagefarm: setting port: ")
        assert outcome.err.count("\n") == 1


def test_a_list_that_is_not_json_is_told(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEFARM_PRELOAD_MODELS", "demo")
    outcome = run("settings")
    assert outcome.code == 3
    assert "preload_models" in outcome.err
    assert "write lists as JSON" in outcome.err


def test_migrate_and_a_database_newer_than_the_code(run: Command, tmp_path: Path) -> None:
    assert "is at revision" in run("migrate").out
    with Store(f"sqlite:///{tmp_path / 'data' / 'imagefarm.db'}").writer.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'f00d'")
    for command in (["migrate"], ["up", "--port", "0", "--workers", "0"], ["keys", "list"]):
        outcome = run(*command)
        assert outcome.code == 7
        assert "newer" in outcome.err
        assert outcome.err.count("\n") == 1


def test_keys_are_made_listed_and_revoked_before_any_farm_ran(run: Command) -> None:
    made = run("keys", "create", "shop", "--scope", "submit", "--scope", "read")
    key = made.out.strip()
    assert key.startswith("if_")
    listed = run("keys", "list")
    assert "shop" in listed.out
    assert "submit read" in listed.out
    assert key not in listed.out
    prefix = key.split("_")[1]
    assert "is revoked" in run("keys", "revoke", prefix).out
    assert json.loads(run("keys", "list", "--json").out)[0]["revoked_at"] is not None
    assert run("keys", "revoke", "nothing").code == 11
    wrong = run("keys", "create", "x", "--scope", "rule")
    assert wrong.code == 2
    assert "use some of submit, read, admin" in wrong.err


@pytest.mark.parametrize(
    ("options", "scopes"),
    [
        ([], ["submit", "read"]),
        (["--tenant", "shopa"], ["submit", "read"]),
        (["--admin"], ["submit", "read", "admin"]),
        (["--scope", "read", "--admin"], ["submit", "read", "admin"]),
        (["--scope", "admin"], ["admin"]),
        (["--farm-wide"], ["submit", "read", "admin", "farm"]),
    ],
)
def test_a_key_has_the_scopes_that_were_asked_for(run: Command, options: list[str], scopes: list[str]) -> None:
    assert json.loads(run("keys", "create", "shop", *options, "--json").out)["scopes"] == scopes


def test_a_key_expires_in_the_time_that_was_asked_for(run: Command) -> None:
    for text, seconds in (("90d", 90 * 86400), ("12h", 43200), ("30m", 1800)):
        made = json.loads(run("keys", "create", "shop", "--expires-in", text, "--json").out)
        assert made["expires_at"] == pytest.approx(made["created_at"] + seconds, abs=1)
    for wrong in ("90", "d", "-1d", "1.5h", "9999999999d", "0d", ""):
        refused = run("keys", "create", "shop", "--expires-in", wrong)
        assert (refused.code, "expires" in refused.err) == (2, True), wrong


def test_the_audit_is_verified_and_a_changed_event_found(run: Command, tmp_path: Path) -> None:
    run("keys", "create", "one")
    run("keys", "create", "two")
    store = Store(f"sqlite:///{tmp_path / 'data' / 'imagefarm.db'}")
    from imagefarm.store.audit import seal

    with store.write() as session:
        seal(session)
    assert "the chain is whole: 2 events" in run("audit", "verify").out
    events = [json.loads(line) for line in run("audit", "export", "--events").out.splitlines()]
    assert [event["kind"] for event in events] == ["key.created", "key.created"]
    with store.write() as session:
        session.execute(update(Event).where(Event.seq == 2).values(kind="key.revoked"))
    broken = run("audit", "verify")
    assert broken.code == 1
    assert "broken at event 2" in broken.err


def test_the_audit_of_pictures_is_exported(run: Command, api: FarmApi, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEFARM_DATABASE_URL", api.app_context.settings.database)
    job = api.rendered("=HYPERLINK(1), 杯子", seed=5, labels={"sku": "A-1"})
    run("audit", "export", "--out", "audit.csv")
    rows = list(csv.DictReader(io.StringIO(Path("audit.csv").read_text("utf-8"))))
    row = next(row for row in rows if row["job"] == job["id"])
    assert row["prompt"] == "'=HYPERLINK(1), 杯子"
    assert (row["seed"], row["model"], row["sha256"]) == ("5", "demo", job["images"][0]["sha256"])
    assert json.loads(row["labels"]) == {"sku": "A-1"}
    lines = [json.loads(line) for line in run("audit", "export", "--format", "jsonl").out.splitlines()]
    assert lines[-1]["prompt"] == "=HYPERLINK(1), 杯子"


def test_cells_that_a_spreadsheet_would_run_are_made_text() -> None:
    assert [csv_cell(value) for value in ("=1", "+1", "-1", "@x", "\t=1", "plain", 1, None)] == [
        "'=1", "'+1", "'-1", "'@x", "'\t=1", "plain", 1, None,
    ]  # fmt: skip


def test_no_farm_is_one_line_and_its_own_exit_code(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setattr("imagefarm.cli.connection.RETRIES", 0)
    outcome = run("submit", "a mug", "--url", f"http://127.0.0.1:{port}")
    assert outcome.code == 8
    assert "is the farm running?" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["submit", "a mug", "--size", "big"], "write it like 512x512"),
        (["submit", "a mug", "--label", "x"], "NAME=VALUE"),
        (["submit"], "Missing argument"),
        (["nonsense"], "No such command"),
        (["batch", "no-such-file.csv"], "does not exist"),
    ],
)
def test_a_wrong_command_line_says_what_is_right(run: Command, words: list[str], says: str) -> None:
    outcome = run(*words)
    assert outcome.code == 2
    assert says in outcome.err


def test_only_the_files_that_are_needed_are_pulled() -> None:
    files = [
        "model_index.json", "sd_xl_base_1.0.safetensors", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin", "vae/model.safetensors",
        "tokenizer/merges.txt", "README.md", "preview.png", "run.py",
    ]  # fmt: skip
    small = ["model_index.json", "tokenizer/merges.txt", "unet/config.json"]
    assert wanted_files(files, "fp16") == [*small, "unet/diffusion_pytorch_model.fp16.safetensors", "vae/model.safetensors"]
    assert wanted_files(files, "") == [*small, "unet/diffusion_pytorch_model.safetensors", "vae/model.safetensors"]
    assert wanted_files(["pytorch_lora_weights.safetensors", "x.bin"], "") == ["pytorch_lora_weights.safetensors"]


def test_models_without_a_farm_come_from_the_catalogue(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagefarm.cli.connection.RETRIES", 0)
    monkeypatch.setenv("IMAGEFARM_URL", "http://127.0.0.1:9")
    outcome = run("models", "--json")
    assert {"demo", "z-image-turbo", "sdxl"} <= {model["name"] for model in json.loads(outcome.out)}
    assert "no farm answers" in outcome.err


def test_pulling_a_local_model_has_nothing_to_do(run: Command) -> None:
    outcome = run("models", "pull", "demo")
    assert (outcome.code, outcome.out) == (0, "")
    assert "is a path of this machine" in outcome.err
    assert run("models", "pull", "nope").code == 2


def test_users_and_keys_that_are_replaced(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a long password\n"))
    made = json.loads(run("users", "create", "Ada", "--role", "admin", "--password-stdin", "--json").out)
    assert (made["name"], made["role"], made["tenant"]) == ("ada", "admin", "default")
    assert "ada" in run("users", "list").out
    monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))
    refused = run("users", "password", "ada", "--password-stdin")
    assert (refused.code, "password" in refused.err) == (2, True)
    assert run("users", "disable", "nobody").code == 11
    assert run("users", "disable", "ada").code == 0
    key = json.loads(run("keys", "create", "shop", "--limit", "queued=5", "--json").out)
    new = json.loads(run("keys", "rotate", key["prefix"], "--grace", "1", "--json").out)
    assert (new["limits"], new["name"]) == ({"queued": 5}, "shop")
    assert new["key"] != key["key"]
    for limit in ("queued", "queued=x", "speed=1", "queued=-1", "queued=none", "queued=" + "9" * 5000, "queued=" + "9" * 20):
        assert run("keys", "create", "x", "--limit", limit).code == 2


def test_limits_of_a_tenant(run: Command) -> None:
    run("keys", "create", "shop", "--tenant", "shop")
    assert run("tenants", "limit", "shop", "queued=100", "images_per_day=50").out == "shop: queued=100 images_per_day=50\n"
    assert "queued=100 images_per_day=50" in run("tenants", "list").out
    assert run("tenants", "limit", "shop", "queued=none", "images_per_day=none").out == "shop: no limits of its own\n"
    assert json.loads(run("tenants", "limit", "shop", "steps=9", "--json").out)["limits"] == {"steps": 9}
    [shop] = [one for one in json.loads(run("tenants", "list", "--json").out) if one["name"] == "shop"]
    assert (shop["limits"], shop["queued"], shop["running"], shop["images_today"]) == ({"steps": 9}, 0, 0, 0)
    for wrong, words in (
        ("steps=-1", "queued=none to remove it"),
        ("speed=1", "limits.speed"),
        ("steps=" + "9" * 20, "limits.steps"),
    ):
        refused = run("tenants", "limit", "shop", wrong)
        assert (refused.code, words in refused.err) == (2, True), refused.err
    assert run("tenants", "limit", "nobody", "steps=1").code == 11
    assert run("tenants", "limit", "shop").code == 2
