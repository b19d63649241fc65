"""Settings: file < environment < flag, and where each value came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagefarm.errors import ConfigurationError
from imagefarm.logs import hide_secrets
from imagefarm.settings import load_settings, redacted


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PORT", "TICKET_SLICE_S", "WORKER_MODELS"):
        monkeypatch.delenv(f"IMAGEFARM_{name}", raising=False)


def test_each_source_wins_over_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imagefarm.toml").write_text("port = 1\nlease_s = 11\nticket_slice_s = 3\n")
    monkeypatch.setenv("IMAGEFARM_PORT", "2")
    monkeypatch.setenv("IMAGEFARM_TICKET_SLICE_S", "4")
    settings = load_settings(port=3)
    assert (settings.port, settings.ticket_slice_s, settings.lease_s) == (3, 4.0, 11.0)
    origins = settings.origins({"port": 3})
    assert origins["port"] == "flag"
    assert origins["ticket_slice_s"] == "environment IMAGEFARM_TICKET_SLICE_S"
    assert origins["lease_s"] == "imagefarm.toml"
    assert origins["device"] == "default"


def test_a_service_gets_the_same_settings_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(port=3, worker_models=["demo"], data_dir="here")
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


@pytest.mark.parametrize(
    ("text", "words"),
    [("prot = 1", "prot"), ("port = 99999", "port"), ("port = [", "imagefarm.toml"), ('device = "tpu"', "device")],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "imagefarm.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        load_settings()


def test_passwords_never_show() -> None:
    url = "postgresql://farm:s3cret@db:5432/farm"
    assert "s3cret" not in redacted(url)
    line = hide_secrets(None, "info", {"event": f"cannot reach {url}", "authorization": "Bearer x", "api_key": "y"})
    assert "s3cret" not in json.dumps(line)
    assert line["authorization"] == line["api_key"] == "***"
