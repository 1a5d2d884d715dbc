"""The external accounts of `mdm-certs serve`: keys by their ids, every mistake at once, and no key in any message."""

from pathlib import Path

import pytest

from certs.acme.jws import base64url
from certs.entries_file import BadEntriesFile
from certs.external_accounts_file import read

KEY = bytes(range(32))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "eab.yaml"
    path.write_text(text)
    return path


def test_a_key_is_found_by_its_id(tmp_path: Path) -> None:
    longer = bytes(64)
    text = (
        f"- {{key_id: 0123, hmac_key: {base64url(KEY)}}}\n"
        f"- {{key_id: b, hmac_key: {base64url(longer)}}}\n"
    )
    assert read(written(tmp_path, text)) == {"0123": KEY, "b": longer}


def test_every_mistake_is_told_at_once_and_no_key(tmp_path: Path) -> None:
    good, short, padded = base64url(KEY), base64url(KEY[:31]), base64url(KEY) + "="
    path = written(
        tmp_path,
        f"- {{key_id: a, hmac_key: {good}}}\n- {{key_id: a, hmac_key: {good}}}\n"
        f"- {{hmac_key: {good}}}\n- {{key_id: c}}\n- {{key_id: d, hmac_key: {short}}}\n"
        f"- {{key_id: e, hmac_key: '{padded}'}}\n- {{key_id: f, hmac_key: {good}, x: y}}\n",
    )
    with pytest.raises(BadEntriesFile) as caught:
        read(path)
    assert caught.value.mistakes == (
        "external account 2: key_id a is given twice",
        "external account 3: key_id is missing",
        "external account 4: hmac_key is missing",
        "external account 5: hmac_key has 31 bytes; HS256 needs 32",
        "external account 6: hmac_key must be base64url without padding",
        "external account 7: unknown key x",
    )
    for secret in good, short:
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "mistake"), [("", "must be a list of external accounts"), ("[", "is not YAML")]
)
def test_what_is_no_list_is_refused(tmp_path: Path, text: str, mistake: str) -> None:
    with pytest.raises(BadEntriesFile, match=f"eab.yaml: {mistake}"):
        read(written(tmp_path, text))
