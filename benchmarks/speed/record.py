"""``results.json``: rows as they come, with the machine and the settings of each section.

A section is written row by row under "unfinished" and moves to "sections" when it ends, so that a
killed run loses at most what it had not measured, and a section measured again replaces the old one
only when it is complete.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.rows import Row
from benchmarks.speed.settings import Settings

FILE = "results.json"
PACKAGES = ("relax_quantus", "relax_xai", "captum", "torch", "torchvggish", "numpy", "scikit-learn")
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")


class Record:
    """The results file of a folder.

    Parameters
    ----------
    folder
        Where it lies; sections of an earlier run are kept.
    command
        What the page says wrote it.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self.path, self.command = folder / FILE, command
        folder.mkdir(parents=True, exist_ok=True)
        self.results: dict[str, Any] = {"sections": {}, "unfinished": {}}
        if self.path.is_file():
            self.results |= json.loads(self.path.read_text(encoding="utf-8"))

    def section(self, name: str, settings: Settings, rows: Iterable[Row]) -> None:
        """Measure a section and write it row by row."""
        entry: dict[str, Any] = {
            "command": self.command,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": {key: str(v) if isinstance(v, Path) else v for key, v in asdict(settings).items()},
            "machine": machine(),
            "rows": [],
        }
        if entry["settings"]["data"] is not None:
            entry["settings"]["data"] = Path(entry["settings"]["data"]).name
        self.results["unfinished"][name] = entry
        self.write()
        for row in rows:
            entry["rows"].append(row.to_json())
            self.write()
        entry["load_average_at_the_end"] = load_average()
        entry["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        self.results["sections"][name] = self.results["unfinished"].pop(name)
        self.write()

    def write(self) -> None:
        """Write the file whole, in one step."""
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(plain(self.results), indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.path)


def plain(value: Any) -> Any:
    """Turn NaN into null, which JSON has; floats keep six significant digits."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < float("inf") else None
    return value


def machine() -> dict[str, Any]:
    """Describe the processor, the threads, the versions, and the load when asked."""
    flags = cpu_field("flags").split() or cpu_field("Features").split()
    return {
        "cpu": cpu_field("model name") or platform.processor() or platform.machine(),
        "logical_cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16_instructions": [flag for flag in BF16_FLAGS if flag in flags],
        "load_average": load_average(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": commit(),
    }


def load_average() -> list[float] | None:
    """Return the load of the last 1, 5 and 15 minutes, where the system says it."""
    return [round(v, 2) for v in os.getloadavg()] if hasattr(os, "getloadavg") else None


def cpu_field(name: str) -> str:
    """Return the first value of a field of Linux's /proc/cpuinfo, or ""."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == name), "")


def version(package: str) -> str | None:
    """Return the installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Return the commit of the repository this lies in; None outside a repository.

    "+changes" is added if tracked files of the package differ from it.
    """
    home = Path(__file__).resolve().parents[2]
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=home, capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            ["git", "diff", "--quiet", "HEAD", "--", "relax_quantus", "benchmarks"], cwd=home, check=False
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() + ("+changes" if changed.returncode else "")
