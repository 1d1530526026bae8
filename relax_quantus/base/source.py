"""The package's own code as one digest: results of other code are other results."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


@cache
def source_sha256() -> str:
    """Of every Python file of this package, as it was when first asked in this process."""
    root, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()
