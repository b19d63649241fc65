"""The farm's settings: `imagefarm.toml` < environment `IMAGEFARM_*` < flags. Every value knows where it came from.

A service started by the embedded farm or by compose reads the same class; nothing else in the project reads the environment.
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
"""Files that come with an installed farm. A checkout has them at its top."""
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
"""Ways of holding a model, the best first (worker/memory/planner.py says what each is), or `auto`: the best that fits."""


Attention = Literal["auto", "native", "math", "efficient", "cudnn", "flash-varlen", "sage-varlen", "xformers"]
"""Ways to compute attention (acceleration.py says what each needs)."""


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
        640, ge=4, le=4096, description="Threads per API process at most, made when needed; each live page holds one"
    )
    max_body_bytes: int = Field(2 * 1024 * 1024, ge=1024, description="Largest body of a request that is not a bulk table")
    max_table_bytes: int = Field(256 * 1024 * 1024, ge=1024, description="Largest body of a bulk table")
    max_asset_bytes: int = Field(32 * 1024 * 1024, ge=1024, description="Largest file of a picture that is sent in")
    max_asset_pixels: int = Field(40_000_000, ge=4096, description="Largest picture that is sent in")
    max_wait_s: float = Field(60.0, ge=0, description="Longest `Prefer: wait`")
    max_streams: int = Field(500, ge=0, description="Live event streams per API process; pages beyond them poll")
    allow_private_urls: bool = Field(
        False, description="Let webhooks and pictures' URLs reach addresses that are not public, as in an intranet"
    )
    fetch_timeout_s: float = Field(20.0, gt=0, le=300, description="Longest that fetching one picture by its URL may take")
    asset_retention_s: float = Field(
        30 * 86400.0, ge=600, description="A picture that was sent in and that no job uses is removed after this long"
    )
    auth: Literal["auto", "open", "keys"] = Field("auto", description="auto: open on loopback, keys elsewhere")
    jwt_secret_file: Path | None = Field(None, description="Take bearer tokens signed with the secret in this file (HS256 ...)")
    jwt_public_key_file: Path | None = Field(None, description="Take those that this PEM file's public key verifies (RS, PS, ES)")
    jwt_jwks_file: Path | None = Field(None, description="Take those that a key of this JWKS file verifies; read again on change")
    jwt_issuer: str = Field("", description="Who must have made a token (iss)")
    jwt_audience: str = Field("", description="For whom a token must be made (aud)")
    jwt_tenant_claim: str = Field("tenant", description="The claim that names a token's tenant, who is made if new")
    jwt_scope_claim: str = Field("scope", description="The claim with a token's scopes: submit, read, admin")
    session_idle_s: float = Field(
        12 * 3600.0, gt=0, le=60 * 86400, description="A browser that is signed in and idle for so long is signed out"
    )
    session_max_age_s: float = Field(7 * 86400.0, gt=0, description="A browser stays signed in for so long at most")

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
    max_queued: int = Field(2_000_000, ge=1, description="Jobs that may wait in the whole farm")
    max_queued_per_tenant: int = Field(1_000_000, ge=1)
    max_running_per_tenant: int = Field(10_000, ge=1)
    max_running_per_model: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="Jobs of a model that run at once in the whole farm, by its name; others: no limit"
    )
    max_batch_rows: int = Field(200_000, ge=1)

    # scheduling
    lease_s: float = Field(30.0, ge=1, description="A claim is lost when it is not renewed for this long")
    sweep_interval_s: float = Field(3.0, ge=0.2, description="Seconds between two sweeps")
    ticket_slice_s: float = Field(10.0, ge=0.1, description="How long one ticket keeps a worker before it is issued anew")
    quantum_s: float = Field(2.0, gt=0, description="GPU-seconds claimed from one flow at a time")
    max_crashes: int = Field(3, ge=1, description="A job that crashed its worker this often is poison")
    max_attempts: int = Field(5, ge=1, description="Attempts before a retryable failure is final")

    # workers
    workers: int = Field(1, ge=0, le=64, description="Workers that `imagefarm up` starts")
    worker_name: str = Field("", description="Name shown for a worker; empty: host and number")
    worker_models: list[str] = Field(default_factory=lambda: ["*"], description="Models a worker serves; * is all")
    preload_models: list[str] = Field(default_factory=lambda: ["demo"], description="Models loaded when a worker starts")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?|fake)$",
        description="auto, cpu, mps, cuda, cuda:N; fake renders noise without torch, for tests of everything else",
    )
    fake_step_s: float = Field(0.03, ge=0, le=60, description="Seconds that a step takes on the device `fake`")
    torch_threads: int = Field(1, ge=1, le=256, description="CPU threads of a worker's model; one is best on a shared machine")
    model_memory_gib: float = Field(0.0, ge=0, description="Memory for resident models; 0: what the device has, less a reserve")
    worker_memory_limit_gib: float = Field(
        0.0, ge=0, description="Main memory a worker's process may hold for itself; one that takes more is ended. 0: no limit"
    )
    max_running_set_images: int = Field(16, ge=1, le=256, description="Images that share a worker's forward pass at most")
    tier: Tier = Field("auto", description="How models are held in memory: auto, or a tier that `imagefarm plan` lists")
    text_encoder_batch_size: int = Field(
        0,
        ge=0,
        le=64,
        description="New prompts that share a pass of the text encoder; 0: 8 on a GPU, 1 on a CPU",
    )
    attention: Attention = Field(
        "auto", description="Kernel of transformers' attention; auto: PyTorch's choice. Those but native and math need a GPU"
    )
    torch_compile: bool = Field(
        False, description="Compile a denoiser's repeated blocks when a model is loaded, which takes minutes the first time"
    )
    vae_tiling: bool = Field(
        False, description="Decode in tiles what is larger than one, not only what ran out of memory: less memory, other bits"
    )
    vae_channels_last: bool = Field(False, description="Keep the decoder's weights channels-last, as some GPUs like them")
    postprocess_threads: int = Field(2, ge=1, le=64)
    fail_blank_for_tenants: list[str] = Field(
        [],
        description="Tenants, by name, whose jobs fail (blank_output) where a picture is one plain colour, also when made again; "
        "* is all. Others get it, with the warning blank",
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
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir / 'imagefarm.db'}"

    @property
    def outputs(self) -> Path:
        """The folder of the pictures in force."""
        return self.outputs_dir or self.data_dir / "outputs"

    @property
    def catalogue_file(self) -> Path:
        """The catalogue in force."""
        if self.models_file is not None:
            return self.models_file
        own = (Path("models.toml").absolute(), self.data_dir / "models.toml")
        return next((file for file in own if file.is_file()), shipped("models.toml"))

    def origins(self, flags: dict[str, Any]) -> dict[str, str]:
        """Say for each setting where its value came from: `default`, the file, the variable, or `flag`."""
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
        """These settings as environment variables, for a service started as a process of its own."""
        dump = self.model_dump(mode="json", exclude_none=True)
        return {
            (ENV_PREFIX + name).upper(): value if isinstance(value, str) else _json(value)
            for name, value in dump.items()
            if value != ""
        }


def shipped(name: str) -> Path:
    """A file or folder that comes with the farm: in the installed package, or at the top of a checkout."""
    return (SHIPPED if SHIPPED.is_dir() else PROJECT_ROOT) / name


def load_settings(**flags: Any) -> Settings:
    """Read the settings; `flags` win over the environment, and that over the file.

    Raises ConfigurationError naming the setting and what is wrong with it.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"setting {name}: {first['msg']} (imagefarm.toml, {ENV_PREFIX}{name.upper()} or a flag)"
        ) from None
    except SettingsError as error:  # a variable that is a list must be JSON
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
