"""Kill commands at random moments, start them again, and compare every byte; write results/kills.json.

Run it with ``python benchmarks/kills.py``. The kills are shared out among three commands: a study, a path and a surface
between checkpoints that are made here. Each command runs once undisturbed; then again and again in other folders, each
time killed up to ``--per-round`` times before it may finish. In a command, ``{runs}`` stands for the folder of the runs
and ``{given}`` for that of the checkpoints. Times and places (timings.jsonl, environment.json, and the sections of a
report that show them) may differ, nothing else.
"""

import argparse
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from closerlook.files import write_json, write_tensors
from closerlook.models import build
from closerlook.runs.environment import environment

OUT = Path(__file__).with_name("results") / "kills.json"
_ON = "--model vgg11_bn --model-options width=0.0625 head=linear init=he --data digits --jobs 2 --runs {runs}"
COMMANDS = {
    "study": "closerlook study restarts --scale smoke --jobs 2 --runs {runs}",
    "path": f"closerlook path {{given}}/0.safetensors {{given}}/1.safetensors --epochs 12 --points 101 {_ON}",
    "surface": f"closerlook surface {' '.join(f'{{given}}/{i}.safetensors' for i in range(3))} --grid 19 19 {_ON}",
}
VOLATILE = {"timings.jsonl", "environment.json"}
SECTION = re.compile(rb'<section id="(?:cost|environment)">.*?</section>', re.DOTALL)
PATIENCE = 60.0
WAYS = {"the whole process group": os.killpg, "the first process": os.kill}


def differences(whole: Path, parts: Path) -> list[str]:
    """What is different in `parts`, but for times and places."""
    left, right = _files(whole), _files(parts)
    found = {name: "is missing" for name in left if name not in right}
    found |= {name: "is too much" for name in right if name not in left}
    both = [name for name in left if name in right and Path(name).name not in VOLATILE]
    found |= {name: "is different" for name in both if _content(left[name]) != _content(right[name])}
    return [f"{name} {what}" for name, what in sorted(found.items())]


def _files(root: Path) -> dict[str, Path]:
    return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return SECTION.sub(b"", content) if path.name == "report.html" else content


@dataclass
class Killer:
    """Starts a command, kills it at a random moment, and counts."""

    command: str
    given: Path
    checkpoint_seconds: float
    random: random.Random
    longest: float = 0.0
    killed: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    left_behind: int = 0
    slowest_end: float = 0.0

    def start(self, runs: Path) -> "subprocess.Popen[bytes]":
        """The command at work on a folder, in a process group of its own."""
        places = {"runs": runs, "given": self.given}
        words = [word.format(**places) for word in shlex.split(self.command)]
        own = [sys.executable, "-m", "closerlook"] if words[0] == "closerlook" else words[:1]
        often = {"CLOSERLOOK_CHECKPOINT_SECONDS": str(self.checkpoint_seconds)}
        return subprocess.Popen(
            [*own, *words[1:]], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, **often},
        )  # fmt: skip

    def finish(self, runs: Path) -> None:
        """Let the command come to its end."""
        process = self.start(runs)
        _, said = process.communicate()
        if process.returncode:
            raise SystemExit(f"the command failed with status {process.returncode}:\n{said.decode()[-2000:]}")

    def kill_once(self, runs: Path) -> bool:
        """Kill the command once; False when it was faster."""
        process = self.start(runs)
        try:
            process.communicate(timeout=self.random.uniform(0, self.longest))
            return False
        except subprocess.TimeoutExpired:
            pass
        whom = self.random.choice(list(WAYS))
        WAYS[whom](process.pid, signal.SIGKILL)
        process.wait()
        self.killed[whom] += 1
        self.moments[_moment(runs)] += 1
        self._wait_for_the_others(process.pid)
        assert process.stderr is not None
        process.stderr.close()
        return True

    def _wait_for_the_others(self, group: int) -> None:
        """Workers end by themselves, one that was just starting when it is up; what does not is ended here."""
        killed = time.monotonic()
        while time.monotonic() < killed + PATIENCE:
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                self.slowest_end = max(self.slowest_end, time.monotonic() - killed)
                return
            time.sleep(0.01)
        self.left_behind += 1
        os.killpg(group, signal.SIGKILL)


def _moment(runs: Path) -> str:
    """How far the work had come."""
    begun = list(runs.glob("*/recipe.json"))
    left = [recipe.parent for recipe in begun if not (recipe.parent / "DONE").exists()]
    if not begun:
        return "before the first step"
    if any((folder / "state.safetensors").exists() for folder in left):
        return "in a step that left a state"
    if any(next(folder.glob("cells/*.npz"), None) for folder in left):
        return "in a step that left cells"
    return "in other steps" if left else "between steps or after the last"


def make_checkpoints(folder: Path) -> None:
    """Three networks as they are drawn, for the commands that read checkpoints."""
    options = {"width": 0.0625, "head": "linear", "init": "he", "classes": 10, "in_channels": 1, "image_size": 8}
    for seed in range(3):
        write_tensors(folder / f"{seed}.safetensors", build("vgg11_bn", seed=seed, **options).state_dict())


def measure(killer: Killer, kills: int, per_round: int, spread: float, root: Path) -> dict[str, Any]:
    """The record of as many kills of one command, in as many rounds as they take."""
    root.mkdir()
    started = time.monotonic()
    killer.finish(root / "whole")
    undisturbed = time.monotonic() - started
    killer.longest = spread * undisturbed
    rounds, different = 0, dict[str, list[str]]()
    while killer.killed.total() < kills:
        rounds += 1
        parts = root / f"round-{rounds}"
        wanted = min(per_round, kills - killer.killed.total())
        while wanted and killer.kill_once(parts):
            wanted -= 1
        killer.finish(parts)
        found = differences(root / "whole", parts)
        different |= {f"round {rounds}": found} if found else {}
        print(f"round {rounds}: {killer.killed.total()} kills, {len(found)} differences", file=sys.stderr)
    return {
        "command": killer.command, "checkpoint_seconds": killer.checkpoint_seconds, "kills": kills,
        "killed": dict(killer.killed), "moments": dict(killer.moments), "rounds": rounds,
        "files": len(_files(root / "whole")), "different": different, "left_behind": killer.left_behind,
        "seconds": {"undisturbed": round(undisturbed, 1), "all": round(time.monotonic() - started, 1)},
        "latest_kill_after": round(killer.longest, 1), "slowest_end_after": round(killer.slowest_end, 1),
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Status 0 when every byte was equal and no process was left behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of all commands together")
    parser.add_argument("--per-round", type=int, default=10)
    parser.add_argument("--spread", type=float, default=0.6, help="latest moment, as a share of the undisturbed time")
    parser.add_argument("--checkpoint-seconds", type=float, default=0.2, help="time between two states of a training")
    parser.add_argument("--command", help="another command in place of the three")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args(argv)
    commands = COMMANDS if asked.command is None else {"command": asked.command}
    moments, records = random.Random(asked.seed), dict[str, dict[str, Any]]()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_checkpoints(root / "given")
        for number, (name, command) in enumerate(commands.items()):
            kills = len(range(number, asked.kills, len(commands)))
            killer = Killer(command, root / "given", asked.checkpoint_seconds, moments)
            records[name] = measure(killer, kills, asked.per_round, asked.spread, root / name)
    write_json(asked.out, {"kills": asked.kills, "commands": records, "environment": environment()})
    return 1 if any(record["different"] or record["left_behind"] for record in records.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
