"""The files that a verb leaves for its user: JSON, CSV, and a figure to look at."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from closerlook import figures, files
from closerlook.cli.answer import plain
from closerlook.landscape import Surface


def folder_for(verb: str, runs: Mapping[str, str], root: Path, out: Path | None) -> Path:
    """The folder that was asked for, or one beside the runs, named by them."""
    return root / f"{verb}-{files.digest(files.to_json(runs))[:8]}" if out is None else out


def write(folder: Path, name: str, result: Any, frame: pd.DataFrame, drawings: Mapping[str, Axes]) -> list[Path]:
    """Write result and table as ``name.json`` and ``.csv``, and each drawing as ``name-its.svg`` and ``.png``."""
    contents = {
        f"{name}.json": files.to_json(plain(result)).encode(),
        f"{name}.csv": frame.to_csv(index=False, lineterminator="\n").encode(),
    }
    for its, drawing in drawings.items():
        stem, picture = f"{name}-{its}" if its else name, io.BytesIO()
        drawing.figure.canvas.figure.savefig(picture, format="png", dpi=200)
        contents |= {f"{stem}.svg": figures.to_svg(drawing).encode(), f"{stem}.png": picture.getvalue()}
    for file, content in contents.items():
        files.write_bytes(folder / file, content)
    return [folder / file for file in contents]


def write_pages(folder: Path, name: str, surface: Surface, splits: Sequence[str], metric: str) -> list[Path]:
    """Write every split's surface as ``name-split.html``, to turn and zoom."""
    return [surface.interactive(folder / f"{name}-{split}.html", split, metric) for split in splits]
