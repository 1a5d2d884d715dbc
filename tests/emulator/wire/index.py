"""What the INDEX.md beside captured messages says each file holds."""

import re

from tests.support import VECTORS

FACT = re.compile(r"\b([A-Za-z]+)=`([^`]*)`")


def facts(folder: str, prefix: str = "") -> list[tuple[str, dict[str, str]]]:
    """File names and the `Key=value` facts of an INDEX.md."""
    index = VECTORS / folder / "INDEX.md"
    rows = index.read_text().splitlines() if index.is_file() else []
    found = []
    for row in rows:
        cells = row.split(" | ")
        name = cells[0].strip("| `")
        if name.startswith(prefix) and name.endswith(".plist"):
            found.append((name, dict(FACT.findall(cells[-1]))))
    return found
