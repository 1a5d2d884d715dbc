"""SQL about who may enroll: profile versions, windows, challenges, certificates."""

import dataclasses
import sqlite3
import uuid

from mdmserver.store.base import (
    Challenge,
    IssuedCertificate,
    ProfileVersion,
    Window,
)
from mdmserver.store.rows import from_row, insert, time_text


def server_id(connection: sqlite3.Connection) -> str:
    row = connection.execute("SELECT value FROM meta WHERE name = 'server_id'").fetchone()
    if row is not None:
        return str(row["value"])
    made = str(uuid.uuid4())
    connection.execute("INSERT INTO meta (name, value) VALUES ('server_id', ?)", (made,))
    return made


def keep_profile_version(connection: sqlite3.Connection, wanted: ProfileVersion) -> ProfileVersion:
    row = connection.execute(
        "SELECT * FROM profile_versions ORDER BY version DESC LIMIT 1"
    ).fetchone()
    newest = from_row(ProfileVersion, row) if row is not None else None
    if newest is not None and dataclasses.replace(wanted, version=newest.version) == newest:
        return newest
    kept = dataclasses.replace(wanted, version=newest.version + 1 if newest else 1)
    insert(connection, "profile_versions", kept)
    return kept


def profile_version(connection: sqlite3.Connection, version: int) -> ProfileVersion:
    row = connection.execute(
        "SELECT * FROM profile_versions WHERE version = ?", (version,)
    ).fetchone()
    if row is None:
        raise LookupError(f"profile version {version} was never kept")
    return from_row(ProfileVersion, row)


def open_window(connection: sqlite3.Connection, window: Window) -> Window:
    row = connection.execute("SELECT * FROM windows WHERE signer = ?", (window.signer,)).fetchone()
    if row is not None:
        return from_row(Window, row)
    insert(connection, "windows", window)
    return window


def reset_windows(connection: sqlite3.Connection, udid: str) -> int:
    return connection.execute("DELETE FROM windows WHERE udid = ?", (udid,)).rowcount


def add_challenge(connection: sqlite3.Connection, challenge: Challenge) -> None:
    connection.execute(
        "DELETE FROM challenges WHERE udid = ? AND purpose = ? AND used_at IS NULL",
        (challenge.udid, challenge.purpose),
    )
    insert(connection, "challenges", challenge)


def end_renewals(connection: sqlite3.Connection, udid: str) -> None:
    """One-time codes of profiles that were sent again are good in the life that they were sent in."""
    connection.execute(
        "DELETE FROM challenges WHERE udid = ? AND purpose = 'renewal' AND used_at IS NULL",
        (udid,),
    )


def challenge(connection: sqlite3.Connection, secret_sha256: bytes) -> Challenge | None:
    row = connection.execute(
        "SELECT * FROM challenges WHERE secret_sha256 = ?", (secret_sha256,)
    ).fetchone()
    return from_row(Challenge, row) if row is not None else None


def use_challenge(
    connection: sqlite3.Connection, secret_sha256: bytes, certificate: IssuedCertificate
) -> bool:
    at = time_text(certificate.issued_at)
    used = connection.execute(
        "UPDATE challenges SET used_at = ?"
        " WHERE secret_sha256 = ? AND used_at IS NULL AND deadline >= ?",
        (at, secret_sha256, at),
    )
    if used.rowcount != 1:
        return False
    insert(connection, "certificates", certificate)
    return True


def add_certificate(connection: sqlite3.Connection, certificate: IssuedCertificate) -> None:
    insert(connection, "certificates", certificate)


def certificate(connection: sqlite3.Connection, sha256: bytes) -> IssuedCertificate | None:
    row = connection.execute("SELECT * FROM certificates WHERE sha256 = ?", (sha256,)).fetchone()
    return from_row(IssuedCertificate, row) if row is not None else None


def supersede_before(connection: sqlite3.Connection, udid: str, current: IssuedCertificate) -> None:
    """Every certificate of the device that is older than the one it uses now is no longer good."""
    connection.execute(
        "UPDATE certificates SET superseded = 1"
        " WHERE udid = ? AND sha256 <> ? AND superseded = 0 AND issued_at <= ?",
        (udid, current.sha256, time_text(current.issued_at)),
    )
