"""How the push stand-in behaves where the real service is strict, uncertain or limited (apple-services.md 6.5, 6.6)."""

from typing import Literal

from pydantic import Field

from emulator.settings_file import FileModel

DAY_S = 86400.0


class PushSettings(FileModel):
    """`strict` is HTTP/2 with a client certificate and known tokens; `compat` takes any HTTP, certificate or none."""

    mode: Literal["strict", "compat"] = "strict"
    port: int = Field(0, ge=0, le=65535, description="provider API over TLS; 0: any free one")
    plain_port: int | None = Field(
        None, ge=0, le=65535, description="compat only: the same over plain HTTP/1.1 on loopback"
    )
    absent_expiration_s: float | None = Field(
        DAY_S, gt=0, description="how long a push without apns-expiration is stored; none: not"
    )
    token_bytes: int | None = Field(
        32, ge=1, le=512, description="the length of every token; none: any length"
    )
    max_concurrent_streams: int = Field(1000, ge=1, le=10_000)
    per_token_per_minute: int | None = Field(
        None, ge=1, description="more pushes of one token are a 429; none: no limit"
    )
    idle_timeout_s: float | None = Field(
        None, gt=0, description="an idle provider connection gets GOAWAY IdleTimeout"
    )
    expired_certificate: Literal["answer", "alert"] = Field(
        "answer", description="403 BadCertificate, or a TLS alert by the machine's own clock"
    )
    max_connections: int = Field(1024, ge=1, description="of providers, at the same time")
    max_tokens: int = Field(1_000_000, ge=1)

    @property
    def strict(self) -> bool:
        return self.mode == "strict"
