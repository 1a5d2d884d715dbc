-- What one server must not forget. Times are ISO 8601 text in UTC with microseconds, so that they sort.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE profile_versions (
    version      INTEGER PRIMARY KEY,
    identifier   TEXT NOT NULL,
    supervised   INTEGER NOT NULL,
    locked       INTEGER NOT NULL,
    topic        TEXT NOT NULL,
    server_url   TEXT NOT NULL,
    check_in_url TEXT NOT NULL,
    sign_message INTEGER NOT NULL
);

CREATE TABLE windows (
    signer    BLOB PRIMARY KEY,
    udid      TEXT NOT NULL,
    serial    TEXT NOT NULL,
    opened_at TEXT NOT NULL,
    deadline  TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX windows_by_udid ON windows (udid);

CREATE TABLE challenges (
    secret_sha256   BLOB PRIMARY KEY,
    kind            TEXT NOT NULL,
    purpose         TEXT NOT NULL,
    udid            TEXT NOT NULL,
    serial          TEXT NOT NULL,
    product         TEXT NOT NULL,
    os_version      TEXT,
    build           TEXT NOT NULL,
    profile_version INTEGER NOT NULL,
    deadline        TEXT NOT NULL,
    used_at         TEXT
) WITHOUT ROWID;
CREATE INDEX challenges_by_udid ON challenges (udid);

CREATE TABLE certificates (
    sha256          BLOB PRIMARY KEY,
    udid            TEXT NOT NULL,
    serial          TEXT NOT NULL,
    product         TEXT NOT NULL,
    os_version      TEXT,
    build           TEXT NOT NULL,
    kind            TEXT NOT NULL,
    purpose         TEXT NOT NULL,
    issuer          TEXT NOT NULL,
    profile_version INTEGER NOT NULL,
    issued_at       TEXT NOT NULL,
    not_after       TEXT NOT NULL,
    superseded      INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX certificates_by_udid ON certificates (udid);

CREATE TABLE devices (
    udid               TEXT PRIMARY KEY,
    serial             TEXT,
    product            TEXT,
    os_version         TEXT,
    build              TEXT,
    state              TEXT NOT NULL,
    certificate_sha256 BLOB,
    kind               TEXT,
    issuer             TEXT,
    profile_version    INTEGER NOT NULL,
    authenticated_at   TEXT NOT NULL,
    topic              TEXT,
    push_token         BLOB,
    push_magic         TEXT,
    unlock_token       BLOB,
    enrolled_at        TEXT,
    last_seen          TEXT,
    configured_uuid    TEXT,
    unenroll           INTEGER NOT NULL DEFAULT 0,
    name               TEXT,
    supervised         INTEGER,
    locked             INTEGER,
    reported_at        TEXT,
    profiles_listed_at TEXT
);

CREATE TABLE commands (
    position     INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid         TEXT NOT NULL UNIQUE,
    udid         TEXT NOT NULL,
    request_type TEXT NOT NULL,
    body         BLOB NOT NULL,
    origin       TEXT NOT NULL,
    rule         TEXT,
    state        TEXT NOT NULL,
    queued_at    TEXT,
    delivered_at TEXT,
    deliveries   INTEGER NOT NULL DEFAULT 0,
    finished_at  TEXT,
    result       BLOB
);
CREATE INDEX commands_by_udid ON commands (udid, position);
CREATE INDEX commands_open ON commands (udid, origin, position)
    WHERE state IN ('queued', 'delivered', 'not_now');

CREATE TABLE policy (
    udid          TEXT NOT NULL,
    rule          TEXT NOT NULL,
    wanted        TEXT,
    reported      TEXT,
    state         TEXT NOT NULL,
    last_enforced TEXT,
    failures      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (udid, rule)
) WITHOUT ROWID;
