"""How to get the same again: a run's configuration as the file that `bench` takes, and the commands.

What ``run.json`` says enters, texts leave.
"""

from __future__ import annotations

import json
from typing import Any

NOT_SETTINGS = ("out", "retry", "scheduler")
"""Where and how it was run, not what."""


def toml(configuration: dict[str, Any]) -> str:
    """The settings of a run as TOML, those left to the preset as the run found them.

    Examples
    --------
    >>> print(toml({"preset": "quick", "seeds": [0, 1], "out": "x", "data": None, "strict": False}), end="")
    preset = "quick"
    seeds = [0, 1]
    strict = false
    """
    given = {k: v for k, v in configuration.items() if v is not None and k not in NOT_SETTINGS}
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in given.items())


def commands(results: str, run: dict[str, Any]) -> list[tuple[str, str]]:
    """What to type, each with what it does."""
    made = [(f"relax-quantus report {results}", "this page, the tables and the figures again, from the results alone")]
    if run.get("configuration"):
        made.append(("relax-quantus bench run.toml --out results", "the results again; run.toml is the file below"))
    return made
