"""Store durably what a run has finished: one SQLite file, for one process at a time.

Finished cells enter, each in a transaction of its own that is on the disk (``synchronous=FULL``)
before `put` returns, so that a process killed at any moment, or a machine that loses its power,
loses at most the cell at hand. A cell is found again by its key, a digest of everything that its
scores depend on (see `grid`): one of other settings is never found, and so never mixed in.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from relax_quantus.base import checks
from relax_quantus.errors import DataError

FILE, LOCK = "cells.sqlite", ".lock"
VERSION = 1
BATCH = 500
LOST = ("failed", "timeout", "out_of_memory")
"""Statuses that another try might change."""


@dataclass(frozen=True)
class Cell:
    """One clip, method and metric, finished.

    Attributes
    ----------
    key
        Digest of what it depends on.
    rows, curves, maps
        What it adds to the tables of scores and of curves, and the maps that were made for it:
        plain values, without the columns that `grid` knows.
    forwards
        Masked encoder forwards that it rests on, by a digest of what they were of: cells share
        them.
    """

    key: str
    rows: list[dict[str, Any]]
    curves: list[dict[str, Any]] = field(default_factory=list)
    maps: list[dict[str, Any]] = field(default_factory=list)
    forwards: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> bool:
        """True if the cell failed or ran out of memory or time."""
        return self.rows[0]["status"] in LOST


class Store:
    """Finished cells and notes of one folder; in memory if there is no folder.

    Parameters
    ----------
    folder
        Made if needed. No other process can use it until this one has closed the store or died.

    Raises
    ------
    DataError
        If another process uses the folder, it cannot be written to, or its store is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._lock = None if self.folder is None else _locked(self.folder)
        name = ":memory:" if self.folder is None else str(self.folder / FILE)
        try:
            self._open(name)
        except sqlite3.Error as error:
            self.close()
            raise DataError(
                f"{name}: expected the store of a benchmark run, got {error}; move it away to begin anew, or choose another folder."
            ) from error

    def _open(self, name: str) -> None:
        self._db = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
        # With exclusive locking the write-ahead log needs no shared memory: network folders work,
        # too.
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
            self._db.execute(f"PRAGMA {pragma}")
        found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if found not in (0, VERSION):
            raise sqlite3.DatabaseError(f"layout {found}, made by another version of this program")
        self._db.execute("CREATE TABLE IF NOT EXISTS cell (key TEXT PRIMARY KEY, lost INTEGER, content TEXT)")
        self._db.execute("CREATE TABLE IF NOT EXISTS note (key TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID")
        self._db.execute("CREATE TABLE IF NOT EXISTS place (identity TEXT PRIMARY KEY, parts TEXT) WITHOUT ROWID")
        self._db.execute(f"PRAGMA user_version={VERSION}")

    def put(
        self,
        cells: Iterable[Cell],
        notes: Mapping[str, Any] | None = None,
        parts: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Write cells, notes and the parts of cells' keys in one transaction.

        All of it is on the disk when this returns.
        """
        written = [(cell.key, int(cell.lost), _content(cell)) for cell in cells]
        noted, placed = _plain(notes), _plain(parts)
        try:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO cell VALUES (?, ?, ?)", written)
            self._db.executemany("INSERT OR REPLACE INTO note VALUES (?, ?)", noted)
            self._db.executemany("INSERT OR REPLACE INTO place VALUES (?, ?)", placed)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # an interrupt may arrive just before or after it
                self._db.execute("ROLLBACK")
            raise

    def get(self, keys: Iterable[str]) -> dict[str, Cell]:
        """Return those cells of these keys that are stored."""
        wanted, found = list(keys), {}
        for start in range(0, len(wanted), BATCH):
            some = wanted[start : start + BATCH]
            marks = ",".join("?" * len(some))
            for key, content in self._db.execute(f"SELECT key, content FROM cell WHERE key IN ({marks})", some):
                found[key] = Cell(key, **json.loads(content))
        return found

    def keys(self, with_lost: bool = True) -> set[str]:
        """Return the keys of all cells, or of those that are not lost."""
        query = "SELECT key FROM cell" if with_lost else "SELECT key FROM cell WHERE NOT lost"
        return {key for (key,) in self._db.execute(query)}

    def parts(self) -> dict[str, dict[str, str]]:
        """Return what the latest cell of each place depended on."""
        return {place: json.loads(parts) for place, parts in self._db.execute("SELECT identity, parts FROM place")}

    def note(self, key: str, default: Any = None) -> Any:
        """Return what was noted under `key`."""
        row = self._db.execute("SELECT content FROM note WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def __len__(self) -> int:
        """Return the number of cells, of any settings."""
        return int(self._db.execute("SELECT count(*) FROM cell").fetchone()[0])

    def close(self) -> None:
        """Close the database and release the folder."""
        if hasattr(self, "_db"):
            self._db.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _locked(folder: Path) -> FileLock:
    """Take the folder; the operating system gives it back if this process dies, however it dies."""
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    holder = folder / f"{LOCK}-holder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        holder.write_text(f"{os.getpid()}\n", encoding="utf-8")
    except Timeout:
        who = holder.read_text(encoding="utf-8").strip() if holder.is_file() else ""
        checks.refuse(
            "out",
            "a folder that no other run is writing to",
            f"{folder}, in use by process {who or 'unknown'}",
            "wait for that run, stop it, or choose another folder",
            DataError,
        )
    except OSError as error:
        raise DataError(f"{folder}: expected a folder that can be written to, got {error}; choose another.") from error
    return lock


def _plain(values: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    return [(key, json.dumps(value)) for key, value in (values or {}).items()]


def _content(cell: Cell) -> str:
    return json.dumps({"rows": cell.rows, "curves": cell.curves, "maps": cell.maps, "forwards": cell.forwards})
