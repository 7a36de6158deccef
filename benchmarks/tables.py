"""Write every table and number of README.md and docs/ from the recorded results.

Two kinds of markers are filled, in place:

    <!-- table: NAME column=Heading:format column ... -->   one table row per row of benchmarks/results/NAME.json
    <!-- /table -->
    <!-- value: NAME ROW column:format -->0.93<!-- /value -->   one number; ROW is the index of the row

`column=Heading:format` takes a column of the record, its heading (underscores become spaces) and a format; both may be
left out. `[low,high]=95_%_interval:+.3f` puts two columns into one cell.
Run as `python -m benchmarks.tables [--check]`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import results
from ieadapt.functional import EP_DEFINITION

ROOT = Path(__file__).parents[1]

_TABLE = re.compile(
    r"(?P<open><!-- table: (?P<name>\S+) (?P<columns>[^\n]*?) ?-->\n).*?(?P<close><!-- /table -->)", re.DOTALL
)
_VALUE = re.compile(
    r"(?P<open><!-- value: (?P<name>\S+) (?P<row>\d+) (?P<column>\S+) -->).*?(?P<close><!-- /value -->)"
)
_COLUMN = re.compile(r"(?P<key>\[[^\]]+\]|[^=:]+)(=(?P<heading>[^:]*))?(:(?P<format>.*))?")


def documents() -> list[Path]:
    """README.md and every Markdown file of docs/ and of the packages."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "src").rglob("*.md"))]


def render(text: str, load: Callable[[str], Mapping[str, Any]] = results.load) -> str:
    r"""Fill every marker of a text from the records.

    Raises:
        ValueError: a marker names a column or a row that the record does not have.

    Example:
        >>> fake = lambda name: {"date": "2026-01-01", "rows": [{"site": "mid", "ep": 71.43}]}
        >>> print(render("<!-- table: x site ep=EP:.1f -->\n<!-- /table -->", fake))
        <!-- table: x site ep=EP:.1f -->
        | site | EP |
        | --- | ---: |
        | mid | 71.4 |
        <!-- /table -->
    """
    text = _TABLE.sub(
        lambda match: match["open"] + _table(load(match["name"]), match["columns"]) + match["close"], text
    )
    return _VALUE.sub(lambda match: match["open"] + _value(load(match["name"]), match) + match["close"], text)


def _table(content: Mapping[str, Any], columns: str) -> str:
    rows = content["rows"]
    specs = [_parse(column) for column in columns.split()]
    cells = [[_cell(row, key, form) for key, _, form in specs] for row in rows]
    ruler = ["---:" if all(_is_number(row, key) for row in rows) else "---" for key, _, _ in specs]
    lines = [[heading for _, heading, _ in specs], ruler, *cells]
    of_ep = any("EP" in heading for _, heading, _ in specs)
    noted = content.get("ep_definition", EP_DEFINITION)
    note = f"\n*EP of {noted} of joint sites.*\n" if of_ep and noted != EP_DEFINITION else ""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + note


def _parse(column: str) -> tuple[str, str, str]:
    match = _COLUMN.fullmatch(column)
    if match is None:
        raise ValueError(f"cannot read the column {column!r}; expected column=Heading:format")
    key = match["key"]
    return key, (match["heading"] or key).replace("_", " "), match["format"] or ""


def _cell(row: Mapping[str, Any], key: str, form: str) -> str:
    if key.startswith("["):
        return "[" + ", ".join(_cell(row, part, form) for part in key[1:-1].split(",")) + "]"
    if key not in row:
        raise ValueError(f"the record has no column {key!r}; it has {sorted(row)}")
    value = row[key]
    return "–" if value is None else format(value, form if isinstance(value, int | float) else "")


def _is_number(row: Mapping[str, Any], key: str) -> bool:
    return key.startswith("[") or isinstance(row.get(key), int | float | None)


def _value(content: Mapping[str, Any], match: re.Match[str]) -> str:
    key, _, form = _parse(match["column"])
    rows, index = content["rows"], int(match["row"])
    if index >= len(rows):
        raise ValueError(f"record {match['name']!r} has {len(rows)} rows, no row {index}")
    return _cell(rows[index], key, form)


def main(arguments: list[str]) -> int:
    """Rewrite the documents, or with `--check` only say which differ (exit status 1)."""
    changed = [path for path in documents() if path.is_file() and render(path.read_text()) != path.read_text()]
    if "--check" in arguments:
        print("\n".join(f"{path.relative_to(ROOT)} differs from the records: run make tables" for path in changed))
        return bool(changed)
    for path in changed:
        path.write_text(render(path.read_text()))
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
