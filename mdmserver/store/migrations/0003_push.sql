-- Push tokens that APNs no longer accepts; a TokenUpdate takes the row away.

CREATE TABLE push_off (
    udid   TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    since  TEXT NOT NULL
) WITHOUT ROWID;
