-- The assignment client: keys and tokens, profiles, the devices that syncs named, and the syncs.

CREATE TABLE assignment_keys (
    key_id        TEXT PRIMARY KEY,
    made_at       TEXT NOT NULL,
    identity_pem  BLOB NOT NULL,
    token_id      TEXT,
    downloaded_at TEXT
) WITHOUT ROWID;

CREATE TABLE assignment_tokens (
    token_id        TEXT PRIMARY KEY,
    name            TEXT NOT NULL,
    description     TEXT NOT NULL,
    apple_id        TEXT NOT NULL,
    consumer_key    TEXT NOT NULL,
    consumer_secret TEXT NOT NULL,
    access_token    TEXT NOT NULL,
    access_secret   TEXT NOT NULL,
    expires_at      TEXT NOT NULL,
    identity_pem    BLOB NOT NULL,
    created_at      TEXT NOT NULL,
    renewed_at      TEXT,
    default_profile TEXT,
    server_name     TEXT,
    server_uuid     TEXT,
    org_name        TEXT,
    org_id          TEXT,
    admin_id        TEXT,
    trouble_word    TEXT,
    trouble_detail  TEXT,
    trouble_step    TEXT,
    trouble_at      TEXT,
    phase           TEXT NOT NULL DEFAULT 'full',
    cursor          TEXT,
    generation      INTEGER NOT NULL DEFAULT 0,
    force_full      INTEGER NOT NULL DEFAULT 0,
    full_started_at TEXT,
    full_done_at    TEXT,
    last_started_at TEXT,
    last_manual_at  TEXT
);

CREATE TABLE assignment_profiles (
    token_id   TEXT NOT NULL,
    uuid       TEXT NOT NULL,
    name       TEXT NOT NULL,
    fields     TEXT NOT NULL,
    defined_at TEXT NOT NULL,
    PRIMARY KEY (token_id, uuid)
) WITHOUT ROWID;

CREATE TABLE assignment_devices (
    token_id            TEXT NOT NULL,
    serial              TEXT NOT NULL,
    listing             TEXT NOT NULL,
    model               TEXT,
    description         TEXT,
    color               TEXT,
    asset_tag           TEXT,
    os                  TEXT,
    device_family       TEXT,
    profile_status      TEXT NOT NULL,
    profile_uuid        TEXT,
    profile_assign_time TEXT,
    profile_push_time   TEXT,
    assigned_date       TEXT,
    assigned_by         TEXT,
    op_type             TEXT,
    op_date             TEXT,
    generation          INTEGER NOT NULL,
    first_seen          TEXT,
    updated_at          TEXT,
    removed_at          TEXT,
    held                INTEGER NOT NULL DEFAULT 0,
    assign_error        TEXT,
    PRIMARY KEY (token_id, serial)
) WITHOUT ROWID;
CREATE INDEX assignment_devices_counted
    ON assignment_devices (token_id, listing, profile_status, profile_uuid);
CREATE INDEX assignment_devices_without_profile ON assignment_devices (token_id, serial)
    WHERE listing = 'listed' AND held = 0
        AND (profile_uuid IS NULL OR profile_status IN ('empty', 'removed'));
CREATE INDEX assignment_devices_removed ON assignment_devices (removed_at)
    WHERE listing = 'removed';

CREATE TABLE assignment_syncs (
    sync_id     INTEGER PRIMARY KEY AUTOINCREMENT,
    token_id    TEXT NOT NULL,
    kind        TEXT NOT NULL,
    "trigger"   TEXT NOT NULL,
    state       TEXT NOT NULL,
    started_at  TEXT NOT NULL,
    resumed     INTEGER NOT NULL DEFAULT 0,
    finished_at TEXT,
    pages       INTEGER NOT NULL DEFAULT 0,
    records     INTEGER NOT NULL DEFAULT 0,
    error       TEXT
);
CREATE INDEX assignment_syncs_by_token ON assignment_syncs (token_id, sync_id);
