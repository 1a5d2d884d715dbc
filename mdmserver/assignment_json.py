"""JSON shapes of tokens, profiles, listed devices and syncs in the management API; no secret is in any of them."""

import json
from datetime import datetime
from typing import Any

from mdmserver.assignment import TokenStatus
from mdmserver.assignment_profiles import Results
from mdmserver.store.assignment_base import AssignedProfile, ListedDevice, SyncRecord, TokenKey


def key_json(key: TokenKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "token_id": key.token_id,
        "made_at": time_json(key.made_at),
        "downloaded_at": time_json(key.downloaded_at),
        "ready": key.downloaded_at is not None,  # before, no token can be created with it
    }


def token_json(status: TokenStatus) -> dict[str, Any]:
    """`state` is active, expired or refused; `error` says why Apple refuses, in its own word."""
    token, counts, trouble = status.token, status.counts, status.token.trouble
    account = token.account
    return {
        "token_id": token.token_id,
        "name": token.name,
        "description": token.description,
        "apple_id": token.apple_id,
        "state": "expired" if status.expired else "refused" if trouble else "active",
        "expires_at": time_json(token.credentials.expires_at),
        "created_at": time_json(token.created_at),
        "renewed_at": time_json(token.renewed_at),
        "consumer_key": token.credentials.consumer_key,
        "server_name": account.server_name,
        "server_uuid": account.server_uuid,
        "org_name": account.org_name,
        "org_id": account.org_id,
        "admin_id": account.admin_id,
        "default_profile": token.default_profile,
        "profiles": status.profiles,
        "devices": {
            "listed": counts.listed,
            "removed": counts.removed,
            "without_profile": counts.unassigned,
        },
        "error": None
        if trouble is None
        else {
            "word": trouble.word,
            "detail": trouble.detail,
            "step": trouble.step,
            "at": time_json(trouble.at),
        },
        "sync": {
            "running_since": time_json(status.running_since),
            "latest": None if status.latest is None else sync_json(status.latest),
            "next": time_json(status.next_sync),
            "next_is_full": token.position.force_full,
            "full_done_at": time_json(token.position.full_done_at),
        },
        "warnings": list(status.warnings),
    }


def sync_json(sync: SyncRecord) -> dict[str, Any]:
    return {
        "sync_id": sync.sync_id,
        "kind": sync.kind,
        "trigger": sync.trigger,
        "state": sync.state.value,
        "resumed": sync.resumed,
        "started_at": time_json(sync.started_at),
        "finished_at": time_json(sync.finished_at),
        "pages": sync.pages,
        "records": sync.records,
        "error": sync.error,
    }


def device_json(device: ListedDevice) -> dict[str, Any]:
    return {
        "serial": device.serial,
        "state": device.listing.value,
        "model": device.model,
        "description": device.description,
        "color": device.color,
        "asset_tag": device.asset_tag,
        "os": device.os,
        "device_family": device.device_family,
        "profile_status": device.profile_status,
        "profile_uuid": device.profile_uuid,
        "profile_assign_time": time_json(device.profile_assign_time),
        "profile_push_time": time_json(device.profile_push_time),
        "assigned_date": time_json(device.assigned_date),
        "assigned_by": device.assigned_by,
        "op_type": device.op_type,
        "op_date": time_json(device.op_date),
        "first_seen": time_json(device.first_seen),
        "updated_at": time_json(device.updated_at),
        "removed_at": time_json(device.removed_at),
        "held": device.held,
        "assign_error": device.assign_error,
    }


def profile_json(profile: AssignedProfile, *, default: bool, devices: int) -> dict[str, Any]:
    return {
        "profile_uuid": profile.uuid,
        "profile_name": profile.name,
        "defined_at": time_json(profile.defined_at),
        "default": default,
        "devices": devices,
        "fields": json.loads(profile.fields),
    }


def results_json(results: Results) -> dict[str, Any]:
    """Apple's word for each serial number."""
    return {
        "devices": results.devices,
        "succeeded": results.succeeded,
        "retry_after_seconds": results.retry_after_s,
    }


def time_json(at: datetime | None) -> str | None:
    return f"{at:%FT%TZ}" if at is not None else None
