"""The direction of imports: a room imports only rooms that come before it."""

import ast
from pathlib import Path

import closerlook

ROOMS = [
    "errors", "files", "checkpoints", "evidence", "figures", "weights", "views", "batches", "layout", "evaluation",
    "activations", "agreement", "probes", "durations", "schedules", "training", "curvature", "watching", "landscape",
    "alignment", "similarity", "models", "data", "runs", "steps", "launch", "report", "diagnosis", "studies", "cli",
]  # fmt: skip
ROOT = Path(closerlook.__file__).parent
LIGHT = {"evidence": {"torch", "pandas", "matplotlib"}, "figures": {"torch"}, "files": {"pandas", "matplotlib"}}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def test_every_file_is_in_a_room() -> None:
    assert {room_of(path) for path in files()} - {"__main__"} <= set(ROOMS)


def test_rooms_import_only_earlier_rooms() -> None:
    for path in files():
        here = room_of(path)
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "closerlook" and len(parts) > 1 and here != "__main__" and parts[1] != here:
                assert parts[1] in ROOMS, f"{path} imports the package itself"
                assert ROOMS.index(parts[1]) < ROOMS.index(here), f"{path} imports {name}"


def test_light_rooms_stay_light() -> None:
    for path in files():
        forbidden = LIGHT.get(room_of(path), set())
        assert not {name.split(".")[0] for name in imported(path)} & forbidden, path
