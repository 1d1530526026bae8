"""What `explain` compares with: recordings and folders -> embeddings to go towards, away from, or to centre on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from relax_quantus.base.modules import checked_embedding
from relax_quantus.cli import console, files, stopping
from relax_quantus.errors import ArgumentError, AudioError, DataError, EncoderError
from relax_quantus.frontend.front_end import FrontEnd
from relax_quantus.relax.similarity import Similarity
from relax_quantus.relax.similarity import get as get_similarity

BLOCK = 48
CENTRED = "centred_cosine"


@dataclass(frozen=True, eq=False)
class Member:
    """A recording and its embedding ``(D,)``, the mean over its examples."""

    path: Path
    embedding: Tensor


@dataclass(frozen=True, eq=False)
class Anchor:
    """The embedding ``(D,)`` of a recording, or the centroid of a folder's recordings.

    Attributes
    ----------
    path
        The recording or folder.
    embedding
        Mean over a recording's examples; of a folder, the mean over its recordings, each of which weighs the same.
    members
        The recordings that were used: the one, or the folder's.
    """

    path: Path
    embedding: Tensor
    members: tuple[Member, ...]

    @property
    def label(self) -> str:
        """What a picture calls it."""
        name = console.shown(self.path.name or self.path.resolve().name)
        return f"{name} (centroid of {len(self.members)} recordings)" if self.path.is_dir() else name


def load_anchor(path: Path, encoder: nn.Module, front_end: FrontEnd, resampler: str = "soxr") -> Anchor:
    """Embed a recording or a folder of recordings.

    Raises
    ------
    AudioError, DataError
        If the recording cannot be used, or none in the folder can; others in a folder are reported and left out.
    EncoderError
        If the embeddings are not finite ``(n, D)``.
    """
    if not path.is_dir():
        try:
            one = Member(path, _embed(path, encoder, front_end, resampler))
        except AudioError:
            raise
        except Exception as problem:
            stopping.raise_if_asked()
            raise EncoderError(f"{console.shown(path)}: {console.complaint(problem)}") from problem
        return Anchor(path, one.embedding, (one,))
    members = []
    for recording in files.recordings_in(path):
        try:
            members.append(Member(recording, _embed(recording, encoder, front_end, resampler)))
        except Exception as problem:
            stopping.raise_if_asked()
            text = console.complaint(problem)
            console.warning(
                f"left out: {text if console.shown(recording) in text else f'{console.shown(recording)}: {text}'}"
            )
    if not members:
        raise DataError(f"{path}: expected recordings that can be used, got none; name another folder.")
    return Anchor(path, torch.stack([m.embedding for m in members]).mean(dim=0), tuple(members))


def choose_similarity(
    name: str, corpus: Path | None, encoder: nn.Module, front_end: FrontEnd, resampler: str = "soxr"
) -> Similarity:
    """Build the similarity called `name`; the one that is centred takes its mean from the recordings in `corpus`.

    Raises
    ------
    ArgumentError
        If a corpus is missing where it is needed or given where it is not.
    """
    if name != CENTRED:
        if corpus is not None:
            raise ArgumentError(
                f"--corpus: expected only with --similarity {CENTRED}, got it with {name!r}; leave it out."
            )
        return get_similarity(name)
    if corpus is None:
        raise ArgumentError(
            f"--corpus: expected with --similarity {CENTRED}, got nothing; name a folder of recordings."
        )
    return get_similarity(name, mean=load_anchor(corpus, encoder, front_end, resampler).embedding)


@torch.no_grad()
def _embed(path: Path, encoder: nn.Module, front_end: FrontEnd, resampler: str) -> Tensor:
    parts = torch.split(front_end.read(path, resampler=resampler).examples, BLOCK)
    return torch.cat([checked_embedding(encoder(x), len(x), nonzero=False) for x in parts]).mean(dim=0)
