"""Measure peak memory with many masks over that with few: the section "memory".

Each is measured in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tqdm.auto import tqdm

from benchmarks.speed.explainers import explainer
from benchmarks.speed.memory_probe import CHEAP, NETWORKS
from benchmarks.speed.rounds import NotAvailableError
from benchmarks.speed.rows import FAILED, SKIPPED, Aim, Row
from benchmarks.speed.settings import Settings

SECTION = "memory"
QUANTITY = "peak resident memory with many masks over that with few"
AIM = Aim("at most", 1.10)
MIB = 1 << 20


def memory(settings: Settings) -> Iterator[Row]:
    """Yield a row an encoder, strategy and estimator; vggish_mini has the first strategy only."""
    sizes = {CHEAP: settings.memory_sizes, "vggish_mini": settings.memory_mini_sizes}
    for encoder, (few, many) in sizes.items():
        for masks in settings.masks if encoder == CHEAP else settings.masks[:1]:
            for estimator in settings.estimators:
                labels = {"encoder": encoder, "masks": masks, "estimator": estimator, "N": f"{many} over {few}"}
                yield measured(settings, labels, encoder, masks, estimator, few, many)


def measured(
    settings: Settings, labels: dict[str, str], encoder: str, masks: str, estimator: str, few: int, many: int
) -> Row:
    """Run few, many, many, few, few, many and take the ratios of pairs."""
    peaks: dict[int, list[dict[str, Any]]] = {few: [], many: []}
    try:
        explainer(NETWORKS[CHEAP](), masks, estimator)
        for round_ in tqdm(
            range(settings.memory_repeats), desc=f"{SECTION}, {encoder}, {masks}, {estimator}", leave=False
        ):
            for n in (few, many) if round_ % 2 == 0 else (many, few):
                peaks[n].append(probe(encoder, masks, estimator, n, settings.threads))
    except NotAvailableError as missing:
        return Row(SECTION, QUANTITY, labels, aim=AIM, status=SKIPPED, reason=str(missing))
    except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
        return Row(SECTION, QUANTITY, labels, aim=AIM, status=FAILED, reason=str(error))
    pairs = list(zip(peaks[many], peaks[few], strict=True))
    details = {
        "peak_mib": [a["peak"] / MIB for a, _ in pairs],
        "peak_mib_few": [b["peak"] / MIB for _, b in pairs],
        "before_the_call_mib": [a["before"] / MIB for a, _ in pairs],
        "measured_by": pairs[0][0]["measured_by"],
    }
    return Row(SECTION, QUANTITY, labels, tuple(a["peak"] / b["peak"] for a, b in pairs), aim=AIM, details=details)


def probe(encoder: str, masks: str, estimator: str, n_samples: int, threads: int) -> dict[str, Any]:
    """Return the peak memory in bytes of one fresh process that explains one clip."""
    arguments = [encoder, masks, estimator, str(n_samples), str(threads)]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.memory_probe", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        check=False,
    )
    if run.returncode:
        raise RuntimeError(f"exit status {run.returncode}: {(run.stderr.strip() or 'no message').splitlines()[-1]}")
    found: dict[str, Any] = json.loads(run.stdout.strip().splitlines()[-1])
    return found
