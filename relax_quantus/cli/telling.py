"""What `explain --json` says of a recording that was explained: which files were written about it, what stands out, and how much was left out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from relax_quantus.cli.clips import Done
from relax_quantus.cli.requests.explain import ExplainRequest


def facts(clip: Path, done: Done, request: ExplainRequest, strategies: Iterable[str]) -> dict[str, Any]:
    """The recording's path and its files by what they are; of sounds and annotations one for each strategy and fill."""
    picture = done.picture
    stem, several = picture.name.removesuffix(".png"), len(request.baselines) > 1
    maps = [f"{name}.{fill}" if several else name for name in strategies for fill in request.baselines]
    kinds = {"page": "html"} if request.html else {}
    files: dict[str, Any] = {
        kind: picture.with_name(f"{stem}.{suffix}")
        for kind, suffix in {"picture": "png", "arrays": "npz", **kinds}.items()
    }
    each = {"kept": "kept.flac", "removed": "removed.flac"} if request.sounds else {}
    each |= {"selections": "selections.txt", "labels": "labels.txt"} if request.annotations else {}
    for kind, suffix in each.items():
        files[kind] = {name: picture.with_name(f"{stem}.{name}.{suffix}") for name in maps}
    return {
        "clip": clip,
        "files": files,
        "left_out_s": done.left_out_s,
        "verdict": done.verdict,
        "maps": done.maps,
    }
