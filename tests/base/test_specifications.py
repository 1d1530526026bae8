"""What a user's own object is named by, NAME:key=value or
FILE:name, and that importing one that fails leaves nothing behind.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from relax_quantus.base.registry import parse, user_object
from relax_quantus.errors import ArgumentError, RelaxQuantusError


def test_a_file_that_fails_leaves_no_module_behind(tmp_path: Path) -> None:
    import sys

    (tmp_path / "half_of_one.py").write_text("x = 1\nraise OSError('no')\n")
    before = list(sys.path)
    with pytest.raises(ArgumentError, match=r"half_of_one\.py to be imported .* got OSError: no"):
        user_object("--encoder", (str(tmp_path / "half_of_one.py"), "x"))
    assert "half_of_one" not in sys.modules
    assert sys.path == before


def test_specifications() -> None:
    assert parse("--encoder", "a.b:c.d").target == ("a.b", "c.d")
    assert parse("--encoder", "C:/x/f.py:make").target == ("C:/x/f.py", "make")
    assert parse("--encoder", "name").name == "name"
    spec = parse("--front-end", "MFCC:n_mfcc=20,melkwargs.n_mels=64,log_mels=true,log_offset=none")
    assert (spec.name, spec.target) == ("MFCC", None)
    assert spec.settings == {"n_mfcc": 20, "melkwargs": {"n_mels": 64}, "log_mels": True, "log_offset": None}
    for text in ("", ":x", "a:", "a:b=", "a:=1", "a:b=1,c", "a:b=1,b.c=2"):
        with pytest.raises(RelaxQuantusError, match="--front-end: expected"):
            parse("--front-end", text)
