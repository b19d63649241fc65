"""The farm's settings: `imagefarm.toml` < environment `IMAGEFARM_*` < flags. The origin of every value is recorded.

All services read this class, in the embedded farm and under compose. Services read environment variables nowhere else.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from imagefarm.errors import ConfigurationError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
SHIPPED = Path(__file__).resolve().parent / "shipped"
"""Files that are installed with the farm. In a checkout they are at the top."""
TOML_FILE = "imagefarm.toml"
ENV_PREFIX = "IMAGEFARM_"


Tier = Literal[
    "auto",
    "resident",
    "encoder-swapped",
    "int8",
    "fp8",
    "int8-encoder-swapped",
    "fp8-encoder-swapped",
    "nf4",
    "nf4-encoder-swapped",
    "group-offload",
    "sequential",
]
"""Memory tiers of a model, the fastest first (worker/memory/planner.py defines them), or `auto`: the fastest tier that fits."""


Attention = Literal["auto", "native", "math", "efficient", "cudnn", "flash-varlen", "sage-varlen", "xformers"]
"""Attention kernels (acceleration.py lists the requirements of each)."""


class BucketSettings(BaseModel):
    """A bucket that batches may be delivered to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,62}(/[A-Za-z0-9._-]+)*/?$")
    endpoint: str = Field("", pattern=r"^(https?://[^\s/@]+/?)?$")
    region: str = "us-east-1"
    key_file: Path | None = None
    tenants: list[str] = Field(default_factory=list)


class Settings(BaseSettings):
    """All settings with their defaults. Times are in seconds, sizes in bytes unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", validate_default=True)

    # where things are
    data_dir: Path = Field(Path("data"), description="Folder of the database, the pictures and the sockets")
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in the data folder")
    redis_url: str = Field("", description="Redis URL; empty: the embedded Redis of `imagefarm up`")
    redis_prefix: str = Field("imagefarm", description="Prefix of every Redis key and channel", pattern=r"^[a-z0-9_-]{1,40}$")
    outputs_dir: Path | None = Field(None, description="Folder of the pictures; empty: `outputs` in the data folder")
    models_file: Path | None = Field(
        None,
        description="The catalogue; empty: models.toml in the working folder, else in the data folder, else the one that comes "
        "with the farm",
    )

    channels_file: Path | None = Field(None, description="Table of the farm's own channels, besides those that come with it")

    # the API
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    api_processes: int = Field(1, ge=1, le=64)
    api_threads: int = Field(
        640, ge=4, le=4096, description="Most threads per API process, started when needed; each live page uses one"
    )
    max_body_bytes: int = Field(2 * 1024 * 1024, ge=1024, description="Largest body of a request that is not a bulk table")
    max_table_bytes: int = Field(256 * 1024 * 1024, ge=1024, description="Largest body of a bulk table")
    max_asset_bytes: int = Field(32 * 1024 * 1024, ge=1024, description="Largest file of an uploaded picture")
    max_asset_pixels: int = Field(40_000_000, ge=4096, description="Largest uploaded picture, in pixels")
    max_wait_s: float = Field(60.0, ge=0, description="Longest wait for a job with `Prefer: wait`")
    max_streams: int = Field(500, ge=0, description="Live event streams per API process; pages beyond them poll")
    allow_private_urls: bool = Field(
        False, description="Allow URLs of webhooks and pictures with private addresses, as in an intranet"
    )
    fetch_timeout_s: float = Field(20.0, gt=0, le=300, description="Longest time to fetch one picture by its URL")
    asset_retention_s: float = Field(
        30 * 86400.0, ge=600, description="Seconds after which an uploaded picture that no job uses is deleted"
    )
    auth: Literal["auto", "open", "keys"] = Field("auto", description="auto: open on loopback, keys elsewhere")
    jwt_secret_file: Path | None = Field(None, description="Accept bearer tokens signed with the secret in this file (HS256 ...)")
    jwt_public_key_file: Path | None = Field(
        None, description="Accept bearer tokens that this PEM public key verifies (RS, PS, ES)"
    )
    jwt_jwks_file: Path | None = Field(
        None, description="Accept bearer tokens signed with a key of this JWKS file; reloaded on change"
    )
    jwt_issuer: str = Field("", description="Required issuer of a token (iss)")
    jwt_audience: str = Field("", description="Required audience of a token (aud)")
    jwt_tenant_claim: str = Field("tenant", description="The claim with the name of a token's tenant; a new tenant is created")
    jwt_scope_claim: str = Field("scope", description="The claim with a token's scopes: submit, read, admin, farm")
    jwt_farm_scope: bool = Field(
        False, description="Accept the scope farm from tokens: the issuer then decides which callers act for every tenant"
    )
    session_idle_s: float = Field(
        12 * 3600.0, gt=0, le=60 * 86400, description="Seconds without a request after which a browser is signed out"
    )
    session_max_age_s: float = Field(7 * 86400.0, gt=0, description="Seconds from sign-in to sign-out, idle or not")

    buckets: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")], BucketSettings] = Field(
        default_factory=dict,
        description="Where batches may be delivered, by name: url (s3://bucket/folder), endpoint, region, key_file (TOML with "
        "access_key and secret_key), tenants (names; empty: all)",
    )

    # limits
    requests_per_minute: int = Field(
        30_000,
        ge=0,
        description="Requests of one key, person or address a minute; 0: no limit. Health checks and live streams are free",
    )
    max_queued: int = Field(2_000_000, ge=1, description="Most queued jobs in the whole farm")
    max_queued_per_tenant: int = Field(1_000_000, ge=1)
    max_running_per_tenant: int = Field(10_000, ge=1)
    max_running_per_model: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="Most running jobs of a model in the whole farm, by model name; other models: no limit"
    )
    max_batch_rows: int = Field(200_000, ge=1)

    # scheduling
    lease_s: float = Field(30.0, ge=1, description="A claim that is not renewed for this long expires")
    sweep_interval_s: float = Field(3.0, ge=0.2, description="Seconds between two sweeps")
    ticket_slice_s: float = Field(10.0, ge=0.1, description="Seconds of rendering after which a worker's ticket is renewed")
    quantum_s: float = Field(2.0, gt=0, description="GPU-seconds of jobs claimed from one flow at a time")
    max_crashes: int = Field(3, ge=1, description="Worker crashes after which a job fails as `poison`")
    max_attempts: int = Field(5, ge=1, description="Attempts after which a retryable failure is final")

    # workers
    workers: int = Field(1, ge=0, le=64, description="Workers that `imagefarm up` starts")
    worker_name: str = Field("", description="Name of a worker; empty: host and number")
    worker_models: list[str] = Field(default_factory=lambda: ["*"], description="Models a worker serves; * is all")
    preload_models: list[str] = Field(default_factory=lambda: ["demo"], description="Models loaded when a worker starts")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?|fake)$",
        description="auto, cpu, mps, cuda, cuda:N; fake renders noise without torch, for tests of everything else",
    )
    fake_step_s: float = Field(0.03, ge=0, le=60, description="Seconds that a step takes on the device `fake`")
    torch_threads: int = Field(1, ge=1, le=256, description="CPU threads of a worker's model; 1 is best on a shared machine")
    model_memory_gib: float = Field(0.0, ge=0, description="Memory for resident models; 0: what the device has, less a reserve")
    worker_memory_limit_gib: float = Field(
        0.0, ge=0, description="Main memory that a worker process may use; a process that uses more is ended. 0: no limit"
    )
    max_running_set_images: int = Field(16, ge=1, le=256, description="Most images in a worker's running set")
    tier: Tier = Field("auto", description="How models are held in memory: auto, or a tier that `imagefarm plan` lists")
    text_encoder_batch_size: int = Field(
        0,
        ge=0,
        le=64,
        description="New prompts that share a pass of the text encoder; 0: 8 on a GPU, 1 on a CPU",
    )
    attention: Attention = Field(
        "auto", description="Attention kernel; auto: PyTorch's choice. All but native and math need a GPU"
    )
    torch_compile: bool = Field(
        False, description="Compile a denoiser's repeated blocks when a model is loaded, which takes minutes the first time"
    )
    vae_tiling: bool = Field(
        False,
        description="Always decode large images in tiles: needs less memory, changes pixels slightly",
    )
    vae_channels_last: bool = Field(False, description="Store the decoder's weights channels-last, which is faster on some GPUs")
    postprocess_threads: int = Field(2, ge=1, le=64)
    fail_blank_for_tenants: list[str] = Field(
        [],
        description="Tenants, by name, whose jobs fail (blank_output) if a picture has a single colour after a retry; "
        "* is all. Jobs of other tenants succeed with the warning blank",
    )

    # logs
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"

    @field_validator(
        "data_dir", "outputs_dir", "models_file", "channels_file", "jwt_secret_file", "jwt_public_key_file", "jwt_jwks_file"
    )
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=Path(TOML_FILE))

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force: `database_url`, or SQLite in the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir / 'imagefarm.db'}"

    @property
    def outputs(self) -> Path:
        """The folder of the images in force: `outputs_dir`, or `outputs` in the data folder."""
        return self.outputs_dir or self.data_dir / "outputs"

    @property
    def catalogue_file(self) -> Path:
        """The catalogue in force: `models_file`, else the first models.toml of the working folder, the data folder and the
        package."""
        if self.models_file is not None:
            return self.models_file
        own = (Path("models.toml").absolute(), self.data_dir / "models.toml")
        return next((file for file in own if file.is_file()), shipped("models.toml"))

    def origins(self, flags: dict[str, Any]) -> dict[str, str]:
        """The origin of each setting's value: `default`, the file's name, `environment` and the variable, or `flag`."""
        in_file = set(tomllib.loads(Path(TOML_FILE).read_text("utf-8"))) if Path(TOML_FILE).is_file() else set()
        origin: dict[str, str] = {}
        for name in type(self).model_fields:
            variable = (ENV_PREFIX + name).upper()
            if flags.get(name) is not None:
                origin[name] = "flag"
            elif variable in os.environ:
                origin[name] = f"environment {variable}"
            elif name in in_file:
                origin[name] = TOML_FILE
            else:
                origin[name] = "default"
        return origin

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a service that is started as a separate process."""
        dump = self.model_dump(mode="json", exclude_none=True)
        return {
            (ENV_PREFIX + name).upper(): value if isinstance(value, str) else _json(value)
            for name, value in dump.items()
            if value != ""
        }


def shipped(name: str) -> Path:
    """A file or folder that belongs to the farm: in the installed package, or at the top of a checkout."""
    return (SHIPPED if SHIPPED.is_dir() else PROJECT_ROOT) / name


def load_settings(**flags: Any) -> Settings:
    """Read the settings. `flags` override the environment, and the environment overrides the file.

    Raises ConfigurationError with the setting's name and the error in its value.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"setting {name}: {first['msg']} (imagefarm.toml, {ENV_PREFIX}{name.upper()} or a flag)"
        ) from None
    except SettingsError as error:  # a list in a variable must be JSON
        raise ConfigurationError(f'{error}: write lists as JSON, such as ["demo"]') from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{TOML_FILE}: {error}") from None


def redacted(url: str) -> str:
    """Return the URL without its password, fit for logs and pages."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    netloc = parts.netloc.replace(f":{parts.password}@", ":***@", 1)
    return urlunsplit(parts._replace(netloc=netloc))


def _json(value: object) -> str:
    import json

    return json.dumps(value)
