"""How the device assignment API behaves where the real one is strict, uncertain or slow (apple-services.md 4, 9.3)."""

from typing import Literal

from pydantic import Field

from emulator.apple.records import UnassignStatus
from emulator.settings_file import FileModel


class AssignmentSettings(FileModel):
    """Every switch of the API; 0 turns a limit off."""

    oauth: Literal["strict", "keys", "open"] = Field(
        "strict",
        description="strict: signature, nonce and time; keys: a known consumer key and token; open: anybody",
    )
    public_urls: tuple[str, ...] = Field(
        (), description="further base URLs that clients sign for, such as that of a proxy"
    )
    nonce_window_s: float = Field(900, gt=0, description="how long a nonce cannot come again")
    timestamp_skew_s: float = Field(300, gt=0, description="how far a client's clock may be off")
    session_s: float = Field(300, gt=0, description="how long a session token is good")
    rotate_sessions: bool = Field(
        True, description="answers bring a new session token; the old one stays good to its end"
    )
    rotate_session_after_s: float = Field(
        30, ge=0, description="how old a session token is when an answer brings the next"
    )
    replaced_token: Literal["401 token_rejected", "403 token_rejected", "403 signature_invalid"] = (
        Field("401 token_rejected", description="what a token gets that is over")
    )
    quoted_errors: bool = Field(
        False, description="error words in double quotes, as Apple's simulator sends them"
    )
    refused_user_agents: tuple[str, ...] = Field(
        (), description="prefixes of agents that get USER_AGENT_INVALID"
    )
    strict_content_type: bool = Field(
        False, description="GET /session needs the exact Content-Type, as at Apple's simulator"
    )
    page_default: int = Field(100, ge=1, le=1000)
    page_maximum: int = Field(1000, ge=1, le=5000)
    max_serials: int = Field(
        1000, ge=0, description="more in one define, assign, unassign or disown are refused"
    )
    devices_per_minute: int = Field(
        0, ge=0, description="the rate at which pages come; Apple's is about 3000"
    )
    assigned_per_minute: int = Field(
        0, ge=0, description="more assignments of one server are THROTTLED"
    )
    unassign_status: UnassignStatus = "removed"
    moved_as_modified: bool = Field(
        False, description="a device that comes from another server is `modified`, never `added`"
    )
    replacement_not_found: Literal["400", "404"] = Field(
        "400", description="DEVICE_NOT_FOUND of the live service, or of the documentation"
    )
    seed_for_it: bool = Field(True, description="false: APPLE_SEED_FOR_IT_TURNED_OFF")
