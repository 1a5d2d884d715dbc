"""SQL about tokens, the keys that wait for one, and the profiles defined with one."""

import sqlite3
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime

from mdmserver.store.assignment_base import (
    Account,
    AssignedProfile,
    Credentials,
    Position,
    Token,
    TokenKey,
    Trouble,
)
from mdmserver.store.rows import from_row, insert, time_text, to_row

TROUBLE = ("trouble_word", "trouble_detail", "trouble_step", "trouble_at")


def add_key(connection: sqlite3.Connection, key: TokenKey) -> None:
    insert(connection, "assignment_keys", key)


def key(connection: sqlite3.Connection, key_id: str) -> TokenKey | None:
    row = connection.execute("SELECT * FROM assignment_keys WHERE key_id = ?", (key_id,)).fetchone()
    return from_row(TokenKey, row) if row is not None else None


def key_downloaded(connection: sqlite3.Connection, key_id: str, at: datetime) -> None:
    connection.execute(
        "UPDATE assignment_keys SET downloaded_at = ? WHERE key_id = ?", (time_text(at), key_id)
    )


def drop_key(connection: sqlite3.Connection, key_id: str) -> bool:
    dropped = connection.execute("DELETE FROM assignment_keys WHERE key_id = ?", (key_id,))
    return dropped.rowcount == 1


def add_token(connection: sqlite3.Connection, token: Token, key_id: str) -> None:
    row = {
        "token_id": token.token_id,
        "name": token.name,
        "description": token.description,
        "apple_id": token.apple_id,
        "identity_pem": token.identity_pem,
        "created_at": time_text(token.created_at),
        **to_row(token.credentials),
        **to_row(token.account),
        **to_row(token.position),
    }
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(
        f"INSERT INTO assignment_tokens ({names}) VALUES ({marks})", tuple(row.values())
    )
    drop_key(connection, key_id)


def renew_token(
    connection: sqlite3.Connection,
    token_id: str,
    credentials: Credentials,
    identity_pem: bytes,
    key_id: str | None,
    apple_id: str | None,
    at: datetime,
) -> None:
    changed = to_row(credentials)
    assignments = ", ".join(f"{name} = ?" for name in changed)
    forgotten = ", ".join(f"{name} = NULL" for name in TROUBLE)
    connection.execute(
        f"UPDATE assignment_tokens SET {assignments}, {forgotten}, identity_pem = ?,"
        " renewed_at = ?, apple_id = coalesce(?, apple_id) WHERE token_id = ?",
        (*changed.values(), identity_pem, time_text(at), apple_id, token_id),
    )
    if key_id is not None:
        drop_key(connection, key_id)


def token(connection: sqlite3.Connection, token_id: str) -> Token | None:
    row = connection.execute(
        "SELECT * FROM assignment_tokens WHERE token_id = ?", (token_id,)
    ).fetchone()
    return _token(row) if row is not None else None


def tokens(connection: sqlite3.Connection) -> Sequence[Token]:
    rows = connection.execute("SELECT * FROM assignment_tokens ORDER BY rowid").fetchall()
    return [_token(row) for row in rows]


def describe_token(
    connection: sqlite3.Connection, token_id: str, name: str, description: str, apple_id: str
) -> None:
    connection.execute(
        "UPDATE assignment_tokens SET name = ?, description = ?, apple_id = ? WHERE token_id = ?",
        (name, description, apple_id, token_id),
    )


def set_account(connection: sqlite3.Connection, token_id: str, account: Account) -> None:
    values = to_row(account)
    assignments = ", ".join(f"{name} = ?" for name in values)
    connection.execute(
        f"UPDATE assignment_tokens SET {assignments} WHERE token_id = ?",
        (*values.values(), token_id),
    )


def set_trouble(connection: sqlite3.Connection, token_id: str, trouble: Trouble | None) -> None:
    values: tuple[str | None, ...] = (None,) * len(TROUBLE)
    if trouble is not None:
        values = (trouble.word, trouble.detail, trouble.step, time_text(trouble.at))
    assignments = ", ".join(f"{name} = ?" for name in TROUBLE)
    connection.execute(
        f"UPDATE assignment_tokens SET {assignments} WHERE token_id = ?", (*values, token_id)
    )


def set_default_profile(connection: sqlite3.Connection, token_id: str, uuid: str | None) -> None:
    connection.execute(
        "UPDATE assignment_tokens SET default_profile = ? WHERE token_id = ?", (uuid, token_id)
    )


def delete_token(connection: sqlite3.Connection, token_id: str) -> None:
    for table in ("keys", "devices", "profiles", "syncs", "tokens"):
        connection.execute(f"DELETE FROM assignment_{table} WHERE token_id = ?", (token_id,))


def add_profile(connection: sqlite3.Connection, profile: AssignedProfile) -> None:
    insert(connection, "assignment_profiles", profile)


def profile(connection: sqlite3.Connection, token_id: str, uuid: str) -> AssignedProfile | None:
    row = connection.execute(
        "SELECT * FROM assignment_profiles WHERE token_id = ? AND uuid = ?", (token_id, uuid)
    ).fetchone()
    return from_row(AssignedProfile, row) if row is not None else None


def profiles(connection: sqlite3.Connection, token_id: str) -> Sequence[AssignedProfile]:
    rows = connection.execute(
        "SELECT * FROM assignment_profiles WHERE token_id = ? ORDER BY defined_at, uuid",
        (token_id,),
    )
    return [from_row(AssignedProfile, row) for row in rows]


def drop_profile(connection: sqlite3.Connection, token_id: str, uuid: str) -> None:
    connection.execute(
        "DELETE FROM assignment_profiles WHERE token_id = ? AND uuid = ?", (token_id, uuid)
    )


def _token(row: sqlite3.Row) -> Token:
    parts = ("credentials", "account", "trouble", "position")
    own = [field.name for field in fields(Token) if field.name not in parts]
    renewed = row["renewed_at"]
    trouble = None
    if row["trouble_word"] is not None:
        trouble = Trouble(
            word=row["trouble_word"],
            detail=row["trouble_detail"],
            step=row["trouble_step"],
            at=datetime.fromisoformat(row["trouble_at"]),
        )
    values = {name: row[name] for name in own}
    values["created_at"] = datetime.fromisoformat(row["created_at"])
    values["renewed_at"] = datetime.fromisoformat(renewed) if renewed is not None else None
    return Token(
        **values,
        credentials=from_row(Credentials, row),
        account=from_row(Account, row),
        trouble=trouble,
        position=from_row(Position, row),
    )
