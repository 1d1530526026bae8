"""What is left behind of a recording: files with one common name, all moved there together.

A `RecordingExplanation` enters; arrays and a picture leave, and a page, sounds and annotations
where they are asked for. Whatever is long is written a stretch at a time.

What is ours in a folder is known by content: the recording's .npz lists the digest of every file
beside it by what follows the common name, in the comment of the ZIP that it is. A file that is not
listed, or has been edited since, is not ours and is never replaced: the results then get a name of
their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from relax_quantus.base.checks import shown
from relax_quantus.base.files import Draft, alone_in, complete, digest, naming
from relax_quantus.recordings.explaining import EACH, Array, part
from relax_quantus.recordings.pages import picture, write_page
from relax_quantus.views.boxes import Region, write_audacity, write_raven
from relax_quantus.views.maps import save_png
from relax_quantus.views.page import Entry
from relax_quantus.views.sounds import write_separated

if TYPE_CHECKING:
    from relax_quantus.recordings.recording import RecordingExplanation

STRETCH = 4096
"""Frames that are written at a time."""
COMPRESSION = {False: 6, True: 1}
"""zlib's level by whether a recording is long.

Maps shrink little more with a higher one, and an hour has many.
"""
LONGEST_STEM = 100
ARRAYS = "npz"
FILES = "files"
Digests = dict[str, list[str]]


@dataclass(frozen=True)
class Written:
    """Say what was written about a recording.

    Attributes
    ----------
    files
        Paths by what they are: ``"picture"``, ``"arrays"`` and where asked for ``"page"``; by name
        of the map ``"kept"``, ``"removed"``, ``"selections"`` and ``"labels"``.
    regions
        By name of the map, where annotations were asked for.
    entry
        The page's line in an index of pages.
    """

    files: dict[str, Any]
    regions: dict[str, list[Region]] | None = None
    entry: Entry | None = field(default=None, repr=False)


def write_results(
    found: RecordingExplanation,
    out: Path,
    *,
    html: bool = False,
    sounds: bool = False,
    annotations: bool = False,
) -> Written:
    """Write what is asked for about a recording into a folder.

    What earlier runs wrote about it makes way.

    Raises
    ------
    RelaxQuantusError, OSError
        If it cannot be written; nothing is, then.
    """
    suffixes: dict[str, Any] = {"picture": "png", "arrays": "npz"}
    entry, boxes = None, None
    with ResultFiles(found.path, out, found.session.hooks.uninterrupted) as files:
        write_arrays(found, files.draft("npz"))
        save_png(picture(found), files.draft("png"))
        if html:
            suffixes["page"] = "html"
            entry = write_page(found, files.draft("html"))
        if sounds:
            suffixes |= {part: {name: f"{name}.{part}.flac" for name in found.maps} for part in ("kept", "removed")}
            for name, its in found.maps.items():
                kept, removed = (files.draft(f"{name}.{part}.flac") for part in ("kept", "removed"))
                scale = write_separated(found.path, kept, removed, its.gains(), found.plan.frames, found.plan.axis)
                _say_scale(found.path, name, scale)
        if annotations:
            boxes = {name: found.regions(name) for name in found.maps}
            for kind in ("selections", "labels"):
                suffixes[kind] = {name: f"{name}.{kind}.txt" for name in found.maps}
            for name, regions in boxes.items():
                write_raven(files.draft(f"{name}.selections.txt"), regions, recording=found.path)
                write_audacity(files.draft(f"{name}.labels.txt"), regions)
        stem = files.publish()

    def named(suffix: Any) -> Any:
        return {k: named(v) for k, v in suffix.items()} if isinstance(suffix, dict) else out / f"{stem}.{suffix}"

    line = None if entry is None else replace(entry, link=quote(f"{stem}.html"))
    return Written(named(suffixes), boxes, line)


def _say_scale(path: Path, name: str, scale: float) -> None:
    """Warn that the two sounds of a map are not at the recording's own scale, if they are not."""
    if scale != 1:
        said = (
            f"the sounds of {name} pass full scale and are written at scale {scale:.4g}, so that kept + removed "
            f"is {scale:.4g} x the recording"
        )
        warnings.warn(f"{shown(path)}: {said}", stacklevel=3)


def write_arrays(found: RecordingExplanation, path: Path) -> None:
    """Write the .npz: maps, times, embeddings and settings.

    Maps are ``(n, 1, T, F)``, or ``(n, samples)``, where examples lie end to end and were explained
    in one go; otherwise one ``(frames, F)`` over the recording's own time axis.
    """
    plan, session, axis = found.plan, found.session, found.plan.axis

    def shaped(values: Array) -> Array:
        if plan.reading is None:
            return values
        x = plan.reading.examples
        return values.reshape(plan.count, -1) if x.ndim == 2 else values.reshape(plan.count, 1, plan.per_example, -1)

    arrays: dict[str, Array] = {
        "settings": np.array(json.dumps(found.settings, sort_keys=True)),
        "x": shaped(found.x),
        "embedding": found.embedding,
        "times_s": found.times_s if plan.is_stitched else found.times_s.reshape(plan.count, -1),
    }
    if plan.is_stitched:
        arrays["example_start_s"] = axis.start_s + np.arange(plan.count) * plan.hop * axis.hop_s
    if found.frequencies_hz is not None:
        arrays["frequencies_hz"] = found.frequencies_hz
    if found.probabilities is not None:
        arrays["probabilities"] = found.probabilities
    for kind, anchor in (("towards", session.towards), ("away", session.away)):
        if anchor is not None:
            arrays[kind] = anchor.embedding.numpy()
    for name, its in found.maps.items():
        arrays |= {f"{kind}_{name}": shaped(values) for kind, values in its.kinds.items()}
        arrays |= {f"{kind}_{name}": getattr(its, kind) for kind in (*EACH, "spearman")}
    write_npz(path, arrays, COMPRESSION[plan.blocks > 1])


def write_npz(path: Path, arrays: Mapping[str, Array], level: int = 6) -> None:
    """Write arrays as a compressed .npz without pickles; memory maps a stretch at a time."""
    with complete(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, True, level) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if not isinstance(values, np.memmap):
                    np.lib.format.write_array(member, np.asarray(values), allow_pickle=False)
                    continue
                np.lib.format.write_array_header_1_0(member, np.lib.format.header_data_from_array_1_0(values))
                for start in range(0, len(values), STRETCH):
                    member.write(part(values, slice(start, start + STRETCH)).tobytes())


class ResultFiles:
    """Write files about `clip` into `out`.

    Nothing of it is there before `publish`, and all of it after.

    What an earlier run wrote about the same recording is then replaced or, where this one writes no
    such file, removed.

    To be used in a ``with`` statement, which removes drafts that were not published. Nothing may
    stop the program in the context `uninterrupted`, in which files are moved.
    """

    def __init__(
        self, clip: Path, out: Path, uninterrupted: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        self.clip, self.out, self._uninterrupted = clip, out, uninterrupted
        self._drafts: dict[str, Draft] = {}

    def draft(self, suffix: str) -> Path:
        """What to write the file to whose name is to end in ``.`` and `suffix`.

        Raises
        ------
        OSError
            If the folder cannot be written to.
        """
        path = self.out / f"{plain_stem(self.clip)}.{suffix}"
        with naming(path):
            self._drafts[suffix] = Draft(path)
        return self._drafts[suffix].path

    def publish(self) -> str:
        """Give every file its name; return what these begin with.

        Other processes wait, and a stop comes before or after.

        Raises
        ------
        OSError
            If they cannot be moved.
        """
        digests = {suffix: _short(draft.path) for suffix, draft in self._drafts.items() if suffix != ARRAYS}
        for suffix, draft in self._drafts.items():
            with naming(self.out / f"{plain_stem(self.clip)}.{suffix}"):
                draft.flush()
        with alone_in(self.out), self._uninterrupted():
            stem, known = self._name()
            arrays = self._drafts[ARRAYS]
            with naming(self.out / f"{stem}.{ARRAYS}"):
                # older digests are kept: killed between two moves, files would be of either kind
                _add_files(arrays.path, known | {s: [*known.get(s, [])[-1:], new] for s, new in digests.items()})
                arrays.flush()
                arrays.move(self.out / f"{stem}.{ARRAYS}")
            for suffix in digests:
                with naming(self.out / f"{stem}.{suffix}"):
                    self._drafts[suffix].move(self.out / f"{stem}.{suffix}")
            for suffix in set(known) - set(digests):  # of an earlier run that was asked for more
                path = self.out / f"{stem}.{suffix}"
                with suppress(OSError):
                    if (
                        path.parent == self.out
                        and path.is_file()
                        and not path.is_symlink()
                        and _short(path) in known[suffix]
                    ):
                        path.unlink()
        return stem

    def _name(self) -> tuple[str, Digests]:
        """Return the first name under which nothing would be lost, and digests of what is there."""
        kept = None
        for stem in stems_for(self.clip):
            taken, known = self._taken(stem)
            if taken is None:
                if kept is not None:
                    warnings.warn(
                        f"{shown(self.clip)}: {shown(kept)} was not written by relax-quantus, or was changed since, and is "
                        f"kept; the results are called {shown(stem)}; move that file away to have its name",
                        stacklevel=4,
                    )
                return stem, known
            kept = kept or (
                taken if clip_of(self.out / f"{stem}.{ARRAYS}") in (None, str(self.clip.resolve())) else None
            )
        raise AssertionError  # there is always another name

    def _taken(self, stem: str) -> tuple[Path | None, Digests]:
        """Return the first file of a name that is not ours to replace, and digests of ours."""
        arrays = self.out / f"{stem}.{ARRAYS}"
        known: Digests = {}
        if os.path.lexists(arrays):
            if clip_of(arrays) != str(self.clip.resolve()):
                return arrays, {}
            known = _files_of(arrays)
        for suffix in self._drafts:
            path = self.out / f"{stem}.{suffix}"
            if suffix != ARRAYS and os.path.lexists(path):
                found = _short(path) if path.is_file() and not path.is_symlink() else ""
                if found not in known.get(suffix, []):
                    return path, {}
                known[suffix] = [found]
        return None, known

    def __enter__(self) -> ResultFiles:
        return self

    def __exit__(self, *_: object) -> None:
        for draft in self._drafts.values():
            draft.discard()


def stems_for(clip: Path) -> Iterator[str]:
    """Yield names, without suffix, that the results of `clip` may have, the plainest first.

    That is the clip's own name; then, with a few characters that depend on where the clip lies;
    then, with a number. So the same clip gets the same name again.
    """
    plain = plain_stem(clip)
    yield plain
    longer = f"{plain}-{hashlib.sha256(os.fsencode(clip.resolve())).hexdigest()[:8]}"
    yield longer
    number = 2
    while True:
        yield f"{longer}-{number}"
        number += 1


def plain_stem(clip: Path) -> str:
    """Return the clip's own name without suffix, as far as a file may be called so."""
    return "".join(c if c.isprintable() else "_" for c in clip.stem).lstrip(".")[:LONGEST_STEM] or "clip"


def _short(path: Path) -> str:
    """Return as much of a file's SHA-256 as tells it from others: a ZIP's comment is short."""
    return digest(path)[:32]


def clip_of(result: Path) -> str | None:
    """Return the recording that a .npz of ours is about; None if it is not one of ours."""
    try:
        with np.load(result, allow_pickle=False) as arrays:
            return str(json.loads(str(arrays["settings"]))["clip"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _files_of(result: Path) -> Digests:
    """Return the digests that a .npz of ours lists."""
    try:
        with zipfile.ZipFile(result) as archive:
            found = json.loads(archive.comment)
        return {str(suffix): [str(d) for d in known] for suffix, known in found[FILES].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        return {}


def _add_files(result: Path, digests: Digests) -> None:
    """List digests in a .npz that is written.

    In the comment of the ZIP that it is, which is no array.
    """
    with zipfile.ZipFile(result, "a") as archive:
        archive.comment = json.dumps({FILES: digests}, sort_keys=True).encode()
