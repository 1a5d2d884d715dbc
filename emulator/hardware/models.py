"""Which devices exist: one `Model` per product type, read once from `emulator/data/models.csv`."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Literal, cast

from emulator.hardware.versions import version_key

Family = Literal["iPhone", "iPad"]
UdidStyle = Literal["8-16", "40hex"]

RANDOM_SERIALS_SINCE: Final = (14, 5)  # models that came with iOS 14.5 (spring 2021) or later
IMEI_ONLY: Final = frozenset({"iPhone9,3", "iPhone9,4", "iPhone10,4", "iPhone10,5", "iPhone10,6"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What all devices of one product type have in common."""

    product_type: str  # "iPhone14,5"
    name: str  # marketing name, "iPhone 13"
    family: Family
    chip: str  # "A15"
    board: str  # hardware model, "d17ap"
    chip_id: str  # hexadecimal, "8110"
    cellular: bool
    esim: bool
    attests: bool  # the chip can: A11 or later
    shared_ipad: bool
    udid_style: UdidStyle
    min_os: str
    max_os: str | None  # None: still supported
    storage_gb: tuple[int, ...]
    model_numbers: tuple[str, ...]  # order numbers without region, "MLPF3"
    regulatory: tuple[str, ...]  # "A2633"

    @property
    def random_serial(self) -> bool:
        """Serial numbers are ten random characters, no longer twelve with plant, week and configuration in them."""
        return version_key(self.min_os) >= RANDOM_SERIALS_SINCE

    @property
    def has_meid(self) -> bool:
        """A CDMA radio: Qualcomm variants, up to the generation of 2020."""
        generation = int(self.product_type.removeprefix(self.family).partition(",")[0])
        return self.cellular and generation <= 13 and self.product_type not in IMEI_ONLY

    def supports(self, version: str) -> bool:
        """The system could run here: between the first and the last for this model."""
        wanted = version_key(version)
        return version_key(self.min_os) <= wanted and (
            self.max_os is None or wanted <= version_key(self.max_os)
        )


def model(product_type: str) -> Model | None:
    """The model of a product type such as `iPhone14,5`; None when no table row is known."""
    return _by_product_type().get(product_type)


def models() -> tuple[Model, ...]:
    """All known models, by product type."""
    return tuple(_by_product_type().values())


@cache
def _by_product_type() -> dict[str, Model]:
    text = (files("emulator") / "data" / "models.csv").read_text("utf-8")
    rows = [_model(row) for row in csv.DictReader(text.splitlines())]
    return {row.product_type: row for row in rows}


def _model(row: dict[str, str]) -> Model:
    return Model(
        product_type=row["product_type"],
        name=row["name"],
        family=cast(Family, row["family"]),
        chip=row["chip"],
        board=row["board"],
        chip_id=row["chip_id"],
        cellular=row["cellular"] == "yes",
        esim=row["esim"] == "yes",
        attests=row["attests"] == "yes",
        shared_ipad=row["shared_ipad"] == "yes",
        udid_style=cast(UdidStyle, row["udid_style"]),
        min_os=row["min_os"],
        max_os=row["max_os"] or None,
        storage_gb=tuple(int(size) for size in row["storage_gb"].split()),
        model_numbers=tuple(row["model_numbers"].split()),
        regulatory=tuple(row["regulatory"].split()),
    )
