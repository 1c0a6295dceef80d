"""The harness of files for the certification kit: see `dpone.testing.Harness`, which this class satisfies."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from dpone.connectors.files import arrowtexts
from dpone.errors import ConfigError

Role = Literal["source", "sink"]

_GROUP = 50  # rows of a Parquet row group: the slices of a source are row groups


class FilesHarness:
    """A folder of files of one format, the variant. Tables are files in it; a sink may also make folders of files."""

    served: ClassVar[Literal["real", "emulated", "fake"]] = "real"
    variants: ClassVar[tuple[str, ...]] = ("parquet", "csv", "jsonl")
    native: ClassVar[Mapping[str, str]] = {
        "id": "int32",
        "name": "text",
        "amount": "decimal(12,2)",
        "active": "boolean",
        "day": "date",
        "at": "timestamptz",
        "score": "float64",
    }
    version: str = pa.__version__
    address: tuple[str, int] | None = None

    def __init__(self, folder: Path, variant: str = "") -> None:
        self._format = variant or "parquet"
        self._spare = folder
        self._folder = folder / "files"
        self._folder.mkdir()
        self._declared: dict[str, str] = {}

    def close(self) -> None:
        """Remove the files."""
        for path in self._spare.iterdir():
            if path.is_dir():
                path.chmod(0o755)
                shutil.rmtree(path)
            else:
                path.unlink()

    def endpoint(self, role: Role, *, address: tuple[str, int] | None = None) -> dict[str, Any]:
        """The folder. Text files of the sample table need its types declared; others are left to inference."""
        del address
        types = {"types": dict(self._declared)} if role == "source" and self._declared else {}
        return {"connector": "files", "path": str(self._folder), "format": self._format, **types}

    def mistakes(self, role: Role) -> Mapping[str, tuple[dict[str, Any], str]]:
        """A source: a folder that is not there, a damaged file. A sink: a folder that would have to be in a file.

        Both: a folder that may not be used; not for root, whom no permission binds.
        """
        broken = self._spare / f"damaged.{self._format}"
        broken.write_bytes({"csv": b'a,b\n1,"open\n', "jsonl": b'{"a": 1\n', "parquet": b"PAR1 no"}[self._format])
        if role == "source":
            found = {"folder": (self._spare / "missing", "schema"), "damaged": (broken, "data")}
        else:
            found = {"folder": (broken / "below", "schema")}
        kept = self._spare / "kept"
        kept.mkdir(0, exist_ok=True)
        if not os.access(kept, os.R_OK):
            found["privilege"] = (kept, "permission")
        right = self.endpoint(role)
        return {name: ({**right, "path": str(path)}, category) for name, (path, category) in found.items()}

    def stream(self, table: str) -> str:
        """The name of the file without its extension."""
        return table

    def setup(self, statements: Sequence[str]) -> None:
        """Raise ConfigError: files have no statements."""
        if statements:
            raise ConfigError("files have no statements", remedy="leave `setup` out of the type cases")

    def put(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write one file under another name, and rename it."""
        if self._format == "parquet":
            types = [arrowtexts.arrow_type(type_) for type_ in self.native.values()]
            cells = list(zip(*rows, strict=True)) if rows else [()] * len(types)
            arrays = [pa.array(values, type_) for values, type_ in zip(cells, types, strict=True)]
            self._publish_parquet(table, pa.table(arrays, names=list(self.native)))
            return
        self._declared = dict(self.native)
        literal = _csv_literal if self._format == "csv" else _json_literal
        self._publish_text(table, list(self.native), [list(map(literal, row)) for row in rows])

    def create(
        self, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[str]] = (), key: Sequence[str] = ()
    ) -> None:
        """A file of literals. CSV: the field as it stands in the file. JSONL: the JSON text. Parquet: see `arrowtexts`.

        A Parquet column is of its type; the other formats have none. No file has a key.
        """
        del key
        if self._format != "parquet":
            self._publish_text(table, list(columns), rows)
            return
        cells = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
        arrays = [arrowtexts.array(type_, texts) for type_, texts in zip(columns.values(), cells, strict=True)]
        made = pa.table(arrays, names=list(columns))
        int96 = "int96" in columns.values()
        if int96 and {"timestamp", "timestamptz"} & {type_.partition("[")[0] for type_ in columns.values()}:
            raise ValueError("Arrow writes all timestamps of a file as INT96, or none")
        self._publish_parquet(table, made, int96=int96)

    def rows(self, table: str, columns: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        """All values of CSV are text; of the others, booleans and floats are Python values, and the rest is text."""
        return [row for path in self._files(table) for row in self._read(path, columns)]

    def texts(self, table: str, columns: Sequence[str]) -> list[tuple[str | None, ...]]:
        """The values with their kind, as Python writes them."""
        return [tuple(None if value is None else repr(value) for value in row) for row in self.rows(table, columns)]

    def types(self, table: str) -> dict[str, str]:
        """Parquet: names as `create` takes them. The others have no types, which are all called text."""
        [path, *_] = self._files(table)
        if self._format == "parquet":
            return {field.name: arrowtexts.type_name(field.type) for field in pq.read_schema(path)}
        names = self._csv_names(path) if self._format == "csv" else list(_first_object(path))
        return dict.fromkeys(names, "text")

    def debris(self) -> list[str]:
        """What is staged, the lock files, and files that were never renamed to their place."""
        state = self._folder / "_dpone"
        kept = {*state.glob("*/receipt.json"), *state.glob("runs/*.json")}
        found = {*self._folder.rglob("*.tmp"), *state.rglob("*")} - kept
        return sorted(str(path.relative_to(self._folder)) for path in found if path.is_file())

    def damage(self, how: str) -> None:
        """Damage the receipt of every stream: `garbage`, `truncated`, or of a `newer` layout."""
        for path in self._folder.glob("_dpone/*/receipt.json"):
            text = path.read_text(encoding="utf-8")
            newer = json.dumps({**json.loads(text), "layout": 99})
            path.write_text({"garbage": "garbage", "truncated": text[:20], "newer": newer}[how], encoding="utf-8")

    def backup(self, what: Literal["target", "state"], table: str) -> Callable[[], None]:
        """Copies of the files of a target, or of the receipts."""
        found = self._files(table) if what == "target" else list(self._folder.glob("_dpone/*/receipt.json"))
        kept = {path: path.read_bytes() for path in found}

        def restore() -> None:
            if what == "target":
                for path in self._files(table):
                    path.unlink()
            for path, data in kept.items():
                path.write_bytes(data)

        return restore

    def empty(self, table: str) -> None:
        """Remove the files of a target."""
        for path in self._files(table):
            path.unlink()

    # -- files -------------------------------------------------------------------------------------------------

    def _files(self, table: str) -> list[Path]:
        """The files of a table: the one of its name, and those in the folder of its name. Raises FileNotFoundError."""
        file, folder = self._folder / f"{table}.{self._format}", self._folder / table
        parts = sorted(path for path in folder.glob(f"*.{self._format}") if not path.name.startswith((".", "_")))
        found = [path for path in (file, *parts) if path.is_file()]
        if not found:
            raise FileNotFoundError(file)
        return found

    def _temporary(self, table: str) -> Path:
        if table.startswith((".", "_")):
            raise ValueError(f"{table}: files with a dot or an underscore in front are hidden, or marks")
        return self._folder / f".{table}.{self._format}.tmp"

    def _publish_parquet(self, table: str, made: pa.Table, *, int96: bool = False) -> None:
        path = self._temporary(table)
        pq.write_table(made, path, row_group_size=_GROUP, use_deprecated_int96_timestamps=int96)
        path.replace(self._folder / f"{table}.{self._format}")

    def _publish_text(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        path = self._temporary(table)
        names = [_csv_literal(name) if self._format == "csv" else json.dumps(name) for name in columns]
        with path.open("w", encoding="utf-8", newline="") as file:
            if self._format == "csv":
                file.write(",".join(names) + "\n")
                file.writelines(",".join(row) + "\n" for row in rows)
            else:
                file.writelines(
                    "{" + ", ".join(f"{name}: {text}" for name, text in zip(names, row, strict=True)) + "}\n"
                    for row in rows
                )
        path.replace(self._folder / f"{table}.{self._format}")

    # -- reading -----------------------------------------------------------------------------------------------

    def _read(self, path: Path, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        if self._format == "jsonl":
            return _read_jsonl(path, columns)
        if self._format == "csv":
            held = self._read_csv(path)
            return list(zip(*(held[name].to_pylist() for name in columns or held.column_names), strict=True))
        held = pq.ParquetFile(path).read()
        return list(zip(*(arrowtexts.values(held[name]) for name in columns or held.column_names), strict=True))

    def _csv_names(self, path: Path) -> list[str]:
        with path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file))

    def _read_csv(self, path: Path) -> pa.Table:
        """An empty field is NULL, and one in quotes is ''."""
        return pyarrow.csv.read_csv(
            path,
            # One block, so that a field may have any length.
            read_options=pyarrow.csv.ReadOptions(block_size=path.stat().st_size + 1),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            convert_options=pyarrow.csv.ConvertOptions(
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
                column_types=dict.fromkeys(self._csv_names(path), pa.string()),
            ),
        )


# -- text ------------------------------------------------------------------------------------------------------


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if isinstance(value, datetime) else str(value)


def _csv_literal(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return "" if value is None else _plain(value)


def _json_literal(value: object) -> str:
    return _plain(value) if isinstance(value, Decimal) else json.dumps(value, default=_plain, ensure_ascii=False)


class _Number(str):
    """A number of a JSON text, as it is written."""

    __slots__ = ()


def _read_jsonl(path: Path, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    found = []
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            held = json.loads(line, parse_int=_Number, parse_float=_Number)
            found.append(tuple(_scalar(held.get(name)) for name in columns or held))
    return found


def _first_object(path: Path) -> dict[str, Any]:
    with path.open(encoding="utf-8", newline="\n") as file:
        line = file.readline()
    return dict(json.loads(line)) if line else {}


def _scalar(value: Any) -> Any:
    """A JSON value: texts and numbers as text, lists and objects as JSON text with their numbers as written."""
    if isinstance(value, list | dict):
        out = io.StringIO()
        _write(value, out)
        return out.getvalue()
    return str(value) if isinstance(value, _Number) else value


def _write(value: Any, out: io.StringIO) -> None:
    if isinstance(value, _Number):
        out.write(value)
    elif isinstance(value, list):
        for index, element in enumerate(value):
            out.write("," if index else "[")
            _write(element, out)
        out.write("]" if value else "[]")
    elif isinstance(value, dict):
        for index, (name, element) in enumerate(value.items()):
            out.write(f"{',' if index else '{'}{json.dumps(name, ensure_ascii=False)}:")
            _write(element, out)
        out.write("}" if value else "{}")
    else:
        out.write(json.dumps(value, ensure_ascii=False))
