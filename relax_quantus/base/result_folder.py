"""Replace the files of a folder of results together, and only where they are ours.

An empty folder is given to whatever writes; at the end its files move into the folder of results.
There, a hidden list says which files we wrote, by their digests: one that is not in it, or was
edited since, stops the move before anything is replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from relax_quantus.base import checks
from relax_quantus.base.files import ABANDONED_S, alone_in, complete, digest, write_text
from relax_quantus.errors import DataError

LIST = ".relax-quantus.json"
RUN = "run.json"
PREFIX = ".relax-quantus-"
Digests = dict[str, list[str]]


@contextmanager
def written_together(to: Path) -> Iterator[Path]:
    """Give an empty folder to write to, and move its files into `to` at the end.

    None is moved if anything goes wrong.

    Raises
    ------
    DataError
        If that would replace a file that is not ours.
    OSError
        If `to` cannot be written to.
    """
    to.mkdir(parents=True, exist_ok=True)
    _sweep(to)
    with TemporaryDirectory(prefix=PREFIX, dir=to) as folder:
        yield Path(folder)
        made = {path.relative_to(folder).as_posix(): path for path in sorted(Path(folder).rglob("*")) if path.is_file()}
        new = {name: digest(path) for name, path in made.items()}
        with alone_in(to):
            known = {name: [found] for name, found in _replaceable(to, new).items()}
            listed = _listed(to)
            write_text(to / LIST, _text(listed | {n: [*known.get(n, []), d] for n, d in new.items()}))
            for name, path in made.items():
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                with complete(to / name) as draft:
                    os.replace(path, draft)
            write_text(to / LIST, _text(listed | {name: [found] for name, found in new.items()}))


def require_ours(to: Path, names: tuple[str, ...]) -> None:
    """Refuse a folder in which files of these names are not ours to replace.

    Raises
    ------
    DataError
        If there is one; the message names the first.
    """
    _replaceable(to, dict.fromkeys(names, ""))


def _replaceable(to: Path, new: dict[str, str]) -> dict[str, str]:
    """Return the digests of the files that would be replaced by new ones, by their names."""
    listed = _listed(to)
    found = {name: digest(to / name) if (to / name).is_file() else "" for name in new if os.path.lexists(to / name)}
    for name, there in found.items():
        if not there or there not in [new[name], *listed.get(name, [])]:
            got = "one that it did not write, or that was changed since"
            checks.refuse(
                str(to / name),
                "a file of relax-quantus's own",
                got,
                "move it away, or choose another folder",
                DataError,
            )
    return found


def _is_run(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return "configuration" in json.loads(path.read_text(encoding="utf-8"))
    return False


def _listed(to: Path) -> Digests:
    """Return what the list says.

    Without one, as of the first version, all that the record of a run lies beside is of that run.
    """
    if not (to / LIST).is_file() and _is_run(to / RUN):
        beside = [
            path for folder in (to, to / "tables", to / "figures") for path in folder.glob("[!.]*") if path.is_file()
        ]
        return {path.relative_to(to).as_posix(): [digest(path)] for path in beside}
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
        found = json.loads((to / LIST).read_text(encoding="utf-8"))
        return {str(name): [str(d) for d in known] for name, known in found.items()}
    return {}


def _text(digests: Digests) -> str:
    return json.dumps(digests, indent=0, sort_keys=True) + "\n"


def _sweep(to: Path) -> None:
    """Remove what killed runs left half-written a day ago or before."""
    for folder in to.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_dir() and time.time() - folder.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(folder, ignore_errors=True)
