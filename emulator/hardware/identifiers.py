"""Numbers that name one device: serial number, UDID, IMEI, MEID, ICCID, EID, MAC addresses, with their check digits.

All are made from a device's place in its fleet by a permutation that the seed chooses, so that no two devices of a fleet
share one, however large it is. None can belong to a real device: a serial number with an I in it does not exist, the
MAC addresses are locally administered, SIM cards are of country code 999.
"""

import hashlib
import math
import random
import re
from functools import lru_cache
from typing import Final

SERIAL_PREFIX: Final = "SIM"  # Apple's serial numbers contain neither I nor O
SERIAL_DIGITS: Final = "0123456789ABCDFGHJKLMNPQRSTVWXYZ"
SERIAL_NUMBER: Final = re.compile(r"[0-9A-Z]{8,14}")  # mdm.md, section 11
HALF_YEARS: Final = (
    "CDFGHJKLMNPQRSTVWXYZ"  # the fourth character of a structured serial: 2010 first half = C
)
WEEKS: Final = "123456789CDFGHJKLMNPQRTVWX"
TYPE_ALLOCATION: Final = "35"  # IMEIs: the reporting body of most Apple devices
ICCID_ISSUER: Final = "89999"  # telecom, country code 999: reserved by the ITU
EID_ISSUER: Final = "89999000"
LOCAL_MAC: Final = 0x02 << 40  # the "locally administered" bit (IEEE 802)


def permuted(index: int, size: int, *, seed: int, what: str) -> int:
    """A number below `size` that no other index of the same seed gets, as long as indexes stay below `size`."""
    factor, offset = _spread(seed, what, size)
    return (index * factor + offset) % size


@lru_cache(maxsize=256)
def _spread(seed: int, what: str, size: int) -> tuple[int, int]:
    rng = random.Random(f"{seed}/{what}/{size}")
    factor = rng.randrange(1, size)
    while math.gcd(factor, size) != 1:
        factor += 1
    return factor, rng.randrange(size)


def luhn_digit(digits: str) -> str:
    """The check digit that IMEIs and ICCIDs end with (ISO/IEC 7812-1, annex B)."""
    doubled = (int(digit) * 2 for digit in digits[::-2])
    total = sum(n - 9 if n > 9 else n for n in doubled) + sum(int(d) for d in digits[-2::-2])
    return str(-total % 10)


def random_serial(index: int, seed: int) -> str:
    """Ten characters without a meaning, as since 2021."""
    return SERIAL_PREFIX + _base32(permuted(index, 32**7, seed=seed, what="serial"), 7)


def structured_serial(index: int, seed: int, *, year: int, configuration: str) -> str:
    """Twelve characters: plant, half-year, week, unit, and four that tell the model (until 2020)."""
    size = 4 * len(WEEKS) * 32**3
    half, rest = divmod(permuted(index, size, seed=seed, what="serial"), size // 4)
    week, unit = divmod(rest, 32**3)
    letter = HALF_YEARS[(2 * (year - 2010) + half) % len(HALF_YEARS)]
    return SERIAL_PREFIX + letter + WEEKS[week] + _base32(unit, 3) + configuration


def configuration_code(product_type: str) -> str:
    """The last four characters of a structured serial: the same for all devices of a product type."""
    number = int.from_bytes(hashlib.sha256(product_type.encode()).digest()[:4])
    return _base32(number % 32**4, 4)


def ecid(index: int, seed: int) -> int:
    """The chip's own number: 52 bits, ending in E as most do."""
    return permuted(index, 2**48, seed=seed, what="ecid") << 4 | 0xE


def chip_udid(chip_id: str, chip_number: int) -> str:
    """`00008110-001A34D90E38801E`: chip and ECID, from A12 on."""
    return f"{int(chip_id, 16):08X}-{chip_number:016X}"


def hashed_udid(serial_number: str, chip_number: int, wifi_mac: str, bluetooth_mac: str) -> str:
    """Forty hex digits: the SHA-1 of what names the device, up to A11."""
    text = f"{serial_number}{chip_number}{wifi_mac}{bluetooth_mac}"
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def imei(index: int, seed: int, *, slot: int = 1) -> str:
    """Fifteen digits, the last one Luhn's; the two slots of a device never share a number."""
    number = permuted(2 * index + slot - 1, 10**12, seed=seed, what="imei")
    digits = f"{TYPE_ALLOCATION}{number:012d}"
    return digits + luhn_digit(digits)


def printed_imei(digits: str) -> str:
    """As devices print it: `35 391805 123456 1`."""
    return f"{digits[:2]} {digits[2:8]} {digits[8:14]} {digits[14:]}"


def iccid(index: int, seed: int) -> str:
    """The SIM card: nineteen digits, the last one Luhn's (ITU-T E.118)."""
    digits = f"{ICCID_ISSUER}{permuted(index, 10**13, seed=seed, what='iccid'):013d}"
    return digits + luhn_digit(digits)


def eid(index: int, seed: int) -> str:
    """The eSIM: 32 digits that leave 1 when divided by 97 (GSMA SGP.29)."""
    digits = f"{EID_ISSUER}{permuted(index, 10**22, seed=seed, what='eid'):022d}"
    return f"{digits}{98 - int(digits) * 100 % 97:02d}"


def phone_number(index: int, seed: int) -> str:
    """A number in the range that North America keeps for fiction: 555-0100 to 555-0199 of each area."""
    area, line = divmod(permuted(index, 800 * 100, seed=seed, what="phone"), 100)
    return f"+1{200 + area}55501{line:02d}"


def mac_addresses(index: int, seed: int) -> tuple[str, str, str]:
    """Wi-Fi, Bluetooth, Ethernet: three in a row, lower case."""
    first = LOCAL_MAC | permuted(index, 2**38, seed=seed, what="mac") << 2
    return _mac(first), _mac(first + 1), _mac(first + 2)


def _mac(number: int) -> str:
    return number.to_bytes(6).hex(":")


def _base32(number: int, length: int) -> str:
    return "".join(SERIAL_DIGITS[number >> 5 * place & 31] for place in reversed(range(length)))
