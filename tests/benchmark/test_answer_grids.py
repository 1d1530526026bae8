"""The answer's configurations: each can be resolved, says
what the protocol says, and is run by the one command.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.answer.__main__ import GRIDS, HERE
from relax_quantus.benchmark.config import BenchmarkConfig

CONFIGS = sorted(HERE.glob("*.toml"))


def resolved(path: Path, tmp_path: Path) -> BenchmarkConfig:
    """The configuration with this folder as the recordings' and as the encoders'."""
    file = tmp_path / path.name
    file.write_text(path.read_text().replace("DATA", str(tmp_path)).replace("ENCODERS", str(tmp_path)))
    return BenchmarkConfig.from_file(file).resolved()


def test_the_command_runs_every_configuration_beside_it() -> None:
    assert sorted(GRIDS) == [path.stem for path in CONFIGS]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_grid_can_be_resolved_and_every_strategy_has_its_twin(path: Path, tmp_path: Path) -> None:
    config = resolved(path, tmp_path)
    strategies = [name for name in config.methods if name.startswith("RELAX-") and " twin" not in name]
    twins = {name.replace(" twin", "", 1) for name in config.methods if " twin" in name}
    assert set(strategies) <= twins
    assert config.primary == (("gain_embedding",) if path.stem == "recordings" else ())
    assert config.estimator == "surrogate"
