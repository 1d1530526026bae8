"""What recordings are compared with.

Other recordings and folders, as embeddings, and what pages show of them.

An anchor is what maps are towards, away from, or centred on. On a page, a recording is shown and
played up to a bound; a folder is named, and those of its recordings that are nearest to its
centroid are shown.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from relax_quantus.audio.reading import read_beginning
from relax_quantus.base.checks import one_line, shown
from relax_quantus.errors import AudioError, DataError, EncoderError, RelaxQuantusError
from relax_quantus.frontend.front_end import FrontEnd
from relax_quantus.recordings.explaining import embed
from relax_quantus.recordings.folders import paths_in
from relax_quantus.relax.similarity import Similarity
from relax_quantus.views.page import Companion, Recording

SHOWN = 3
"""Recordings of a folder that are shown and played."""
LISTED = 12
"""Further ones that are named."""
SHOWN_S = 20.0
"""How much of each, in seconds."""


@dataclass(frozen=True, eq=False)
class Member:
    """Hold a recording and its embedding ``(D,)``, the mean over its examples."""

    path: Path
    embedding: Tensor


@dataclass(frozen=True, eq=False)
class Anchor:
    """Hold the embedding ``(D,)`` of a recording, or the centroid of a folder's recordings.

    Attributes
    ----------
    path
        The recording or folder.
    embedding
        Mean over a recording's examples; of a folder, the mean over its recordings, each of which
        weighs the same.
    members
        The recordings that were used: the one, or the folder's.
    """

    path: Path
    embedding: Tensor
    members: tuple[Member, ...]

    @property
    def label(self) -> str:
        """What a picture calls it."""
        name = shown(self.path.name or self.path.resolve().name)
        return f"{name} (centroid of {len(self.members)} recordings)" if self.path.is_dir() else name


def load_anchor(
    path: Path,
    encoder: nn.Module,
    front_end: FrontEnd,
    resampler: str = "soxr",
    check: Callable[[], None] = lambda: None,
) -> Anchor:
    """Embed a recording or a folder of recordings.

    `check` is called after a failure, and may stop it all.

    Raises
    ------
    AudioError, DataError
        If the recording cannot be used, or none in the folder can; others in a folder are left out
        with a warning.
    EncoderError
        If the embeddings are not finite ``(n, D)``.
    """
    if not path.is_dir():
        try:
            one = Member(path, _embed(path, encoder, front_end, resampler))
        except AudioError:
            raise
        except Exception as problem:
            check()
            raise EncoderError(f"{shown(path)}: {_complaint(problem)}") from problem
        return Anchor(path, one.embedding, (one,))
    members = []
    for recording in paths_in(path):
        try:
            members.append(Member(recording, _embed(recording, encoder, front_end, resampler)))
        except Exception as problem:  # of whatever runtime an encoder calls
            check()
            text = _complaint(problem)
            named = text if shown(recording) in text else f"{shown(recording)}: {text}"
            warnings.warn(f"left out: {named}", stacklevel=2)
    if not members:
        raise DataError(f"{path}: expected recordings that can be used, got none; name another folder.")
    return Anchor(path, torch.stack([m.embedding for m in members]).mean(dim=0), tuple(members))


def _complaint(problem: Exception) -> str:
    if isinstance(problem, RelaxQuantusError):
        return str(problem)
    return one_line(f"unexpected {type(problem).__name__}: {problem}")


def _embed(path: Path, encoder: nn.Module, front_end: FrontEnd, resampler: str) -> Tensor:
    return embed(front_end.read(path, resampler=resampler).examples, encoder).mean(dim=0)


@dataclass(frozen=True, eq=False)
class Beside:
    """Hold an anchor with those of its members that are shown, nearest to it first.

    Read once, for all clips.
    """

    role: Literal["towards", "away"]
    anchor: Anchor
    members: tuple[Member, ...]
    recordings: tuple[Recording, ...]


def compare(similarity: Similarity, h: Tensor, reference: Tensor) -> Tensor:
    """Return the similarity ``(n,)`` of embeddings ``(n, D)`` to one, ``(D,)``.

    NaN for embeddings of zeros, which are not explained.
    """
    found = similarity(reference.expand_as(h), h[None])[0]
    return torch.where(h.any(dim=1), found, torch.nan)


def load_beside(
    towards: Anchor | None, away: Anchor | None, similarity: Similarity, front_end: FrontEnd, resampler: str
) -> tuple[Beside, ...]:
    """Read what is shown of every anchor that there is."""
    found = []
    roles: tuple[Literal["towards", "away"], ...] = ("towards", "away")
    for role, anchor in zip(roles, (towards, away), strict=True):
        if anchor is not None:
            embeddings = torch.stack([m.embedding for m in anchor.members])
            nearest = compare(similarity, embeddings, anchor.embedding).nan_to_num(-torch.inf).argsort(descending=True)
            members = tuple(anchor.members[int(i)] for i in nearest)
            recordings = tuple(_read(member, front_end, resampler) for member in members[:SHOWN])
            found.append(Beside(role, anchor, members, recordings))
    return tuple(found)


def companion(beside: Beside, h: Tensor, similarity: Similarity) -> Companion:
    """Return what a page says of an anchor beside a clip with embeddings `h` ``(n, D)``."""
    anchor, own = beside.anchor, h[h.any(dim=1)].mean(dim=0, keepdim=True)
    recordings = beside.recordings
    if anchor.path.is_dir():
        recordings = tuple(
            replace(r, note=f"{r.note}; similarity to this recording {_to(own, m, similarity)}, to the centroid {near}")
            for m, r in zip(beside.members, recordings, strict=False)
            for near in [_to(anchor.embedding[None], m, similarity)]
        )
    return Companion(beside.role, anchor.label, compare(similarity, h, anchor.embedding), recordings, _about(beside))


def _to(h: Tensor, member: Member, similarity: Similarity) -> str:
    return f"{float(compare(similarity, h, member.embedding)):.2f}"


def _about(beside: Beside) -> str:
    """Say of a folder which recordings are shown, and name some others."""
    if not beside.anchor.path.is_dir():
        return ""
    others = beside.members[SHOWN:]
    if not others:
        return ""
    named = ", ".join(shown(m.path.name) for m in others[:LISTED])
    more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
    return f"Nearest to the centroid are those below, then {named}{more}."


def _read(member: Member, front_end: FrontEnd, resampler: str) -> Recording:
    """Read the beginning of a recording; the rest is decoded for its length, and not kept."""
    axis, frames = front_end.axis, front_end.silent_example().shape[2]
    most = max(1, int(SHOWN_S / (frames * axis.hop_s)) if axis.in_seconds else 1)
    reading = front_end.read(member.path, most, resampler)
    examples = reading.examples[:most].clone()
    shown_s = len(examples) * frames * axis.hop_s if axis.in_seconds else SHOWN_S
    wave, rate_hz = read_beginning(member.path, shown_s + axis.window_s)
    is_cut = len(examples) < reading.in_all and axis.in_seconds
    part = f"the first {shown_s:.1f} of " if is_cut else ""
    return Recording(shown(member.path.name), examples, wave, rate_hz, f"{part}{reading.seconds:.1f} s")
