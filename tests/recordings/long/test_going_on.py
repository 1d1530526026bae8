"""`explain` on long recordings goes on where it was
stopped, and never with what belongs to another question.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from recorded_calls import FEW, arrays, explain, recording, same
from typer.testing import Result

from relax_quantus.errors import DataError
from relax_quantus.recordings import plan as plans
from relax_quantus.recordings.blocks import Block, BlockStore, key_of
from relax_quantus.recordings.plan import ExplainSettings
from relax_quantus.recordings.session import Session


def start(path: Path, out: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "relax_quantus", "explain", str(path), "--out", str(out), *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, stdout=subprocess.PIPE)


def blocks(out: Path) -> list[Path]:
    return sorted(out.glob("unfinished/*/block-*.npz"))


def test_killed_and_started_again_it_goes_on_and_is_the_same(tmp_path: Path, encoder: Callable[..., str]) -> None:
    path, _ = recording(tmp_path / "calls.wav", 150.0)
    asked = ("--encoder", encoder(0.004), *FEW, "--hop", 0.5, "--max-examples", 0)
    process = start(path, tmp_path / "killed", *asked)
    deadline = time.monotonic() + 120
    while len(blocks(tmp_path / "killed")) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    kept = blocks(tmp_path / "killed")
    assert 2 <= len(kept) < 7
    changed_at = [block.stat().st_mtime_ns for block in kept]
    (kept[0].parent / ".77.part").write_bytes(b"half a block")
    again = start(path, tmp_path / "killed", *asked)
    while again.poll() is None and len(blocks(tmp_path / "killed")) <= len(kept):
        time.sleep(0.005)
    assert [block.stat().st_mtime_ns for block in kept if block.exists()] in (changed_at, [])
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert f"calls.wav: going on after {48 * len(kept)} of 299 examples" in said
    assert explain(path, "--out", tmp_path / "whole", *asked).exit_code == 0
    same(arrays(tmp_path / "killed" / "calls.npz"), arrays(tmp_path / "whole" / "calls.npz"))
    assert (tmp_path / "killed" / "calls.png").read_bytes() == (tmp_path / "whole" / "calls.png").read_bytes()
    assert not (tmp_path / "killed" / "unfinished").exists()


@pytest.fixture
def stopped(tmp_path: Path, encoder: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `explain`; told to, stop it once two blocks are on disk."""
    put = BlockStore.put

    def run(path: Path, *arguments: object, stop: bool = True, name: str = "cheap") -> Result:
        def put_and_stop(store: BlockStore, number: int, found: Block) -> None:
            put(store, number, found)
            if stop and number == 1:
                raise DataError("stopped")

        monkeypatch.setattr(BlockStore, "put", put_and_stop)
        given = (*FEW, "--hop", 0.5, "--max-examples", 0, *arguments)
        return explain(path, "--out", tmp_path / "out", "--encoder", encoder(name=name), *given)

    return run


def test_other_settings_a_changed_file_or_network_never_find_the_blocks(
    tmp_path: Path, stopped: Callable[..., Result]
) -> None:
    path, _ = recording(tmp_path / "calls.wav", 110.0)
    assert stopped(path).exit_code == 1
    assert len(blocks(tmp_path / "out")) == 2
    assert "going on" not in stopped(path, "--seed", 1, stop=False).stderr
    assert len(blocks(tmp_path / "out")) == 2  # those of the first are still there for it
    changed = path.read_bytes()
    recording(path, 110.0, 9.0)
    assert "going on" not in stopped(path, stop=False).stderr
    path.write_bytes(changed)
    assert "going on after 96 of 219 examples" in stopped(path, stop=False).stderr


def test_the_key_is_of_everything_that_blocks_depend_on(tmp_path: Path, encoder: Callable[..., str]) -> None:
    path, _ = recording(tmp_path / "calls.wav", 70.0)
    other, _ = recording(tmp_path / "other.wav", 2.0, 1.0)
    named, network = encoder(), tmp_path / "cheap.py"
    bare = ExplainSettings(named, "time", n_samples=8, hop_s=0.5, max_examples=0)

    def key(settings: ExplainSettings) -> str:
        session = Session(settings)
        return key_of(plans.plan_for(path, session), session)

    changes: list[dict[str, Any]] = [
        {"seed": 1},
        {"n_samples": 9},
        {"masks": "random"},
        {"baselines": "background"},
        {"baselines": ("silence", "background")},
        {"hop_s": 0.48},
        {"max_examples": 100},
        {"tolerance": 0.1},
        {"estimator": "weighted"},
        {"reference": other},
        {"away": other},
        {"similarity": "dot"},
        {"similarity": "centred_cosine", "corpus": other},
        {"domain": "amplitude"},
        {"precision": "bfloat16"},
        {"encoder": "vggish_mini"},
    ]
    keys = [key(bare), *(key(replace(bare, **change)) for change in changes)]
    with network.open("a", encoding="utf-8") as source:
        source.write("# another network, of the same weights\n")
    keys.append(key(bare))
    recording(path, 70.0, 9.0)
    keys.append(key(bare))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("of", ["block-000001.npz", "map-importance_time.npy"])
def test_a_damaged_block_is_made_again(of: str, tmp_path: Path, stopped: Callable[..., Result]) -> None:
    path, _ = recording(tmp_path / "calls.wav", 110.0)
    assert stopped(path, stop=False).exit_code == 0
    whole = arrays(tmp_path / "out" / "calls.npz")
    assert stopped(path).exit_code == 1
    damaged = blocks(tmp_path / "out")[1].with_name(of)
    content = bytearray(damaged.read_bytes())
    content[len(content) * 3 // 4] ^= 255  # in the second block
    damaged.write_bytes(content)
    assert "going on after 48 of 219" in stopped(path, stop=False).stderr
    same(arrays(tmp_path / "out" / "calls.npz"), whole)


def test_two_runs_of_one_thing_are_refused(tmp_path: Path) -> None:
    with BlockStore(tmp_path, "clip", "k" * 64), pytest.raises(DataError, match="that no other run is explaining"):
        BlockStore(tmp_path, "clip", "k" * 64)
    BlockStore(tmp_path, "clip", "k" * 64).remove()


def test_several_recordings_go_on_where_the_command_stopped(tmp_path: Path, stopped: Callable[..., Result]) -> None:
    paths = [recording(tmp_path / name, 70.0, every)[0] for name, every in (("a.wav", 5.0), ("b.wav", 7.0))]
    assert stopped(paths[0], paths[1]).exit_code == 1
    assert len(blocks(tmp_path / "out")) == 4
    done = stopped(paths[0], paths[1], "--html", stop=False)
    assert done.stderr.count("going on after 96 of 139") == 2
    assert [Path(line).name for line in done.stdout.splitlines()] == [
        "a.png",
        "a.html",
        "b.png",
        "b.html",
        "index.html",
    ]
