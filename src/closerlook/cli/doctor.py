"""``closerlook doctor``: what is on this machine, and what is missing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch

from closerlook.cli.answer import answer, columns
from closerlook.cli.options import Json, Runs
from closerlook.data.cifar import CIFAR10, CIFAR100
from closerlook.data.fashion import FASHION
from closerlook.data.lookup import VARIABLE, places
from closerlook.data.mnist import FILE, NAME, WAYS_OUT, packaged
from closerlook.runs.environment import environment

_GIGABYTE = 1e9
_FETCHED = "fetched when first used ({} MB)"
_DATA = {
    "fashion": (FASHION.name, tuple(FASHION.checksums), _FETCHED.format(FASHION.megabytes)),
    **{
        kind.name: (kind.archive.folder, kind.archive.members, _FETCHED.format(kind.archive.megabytes))
        for kind in (CIFAR10, CIFAR100)
    },
    "mnist5k": (NAME, (FILE,), WAYS_OUT[0]),
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `state` is ok, note or FAIL, and `repair` says what to do."""

    name: str
    state: str
    found: str
    repair: str = ""


def doctor(runs: Runs = Path("runs"), json: Json = False) -> int:
    """Check this machine: versions, threads, processor, data sets, disk, write access.

    Exit status 1 when something that is needed is missing; what to do stands beside it. Nothing is fetched.

    Examples
    --------
    closerlook doctor
    closerlook doctor --runs /scratch/runs --json
    """
    checks = [*_packages(), *_processor(), *_data(), *_disk(runs)]
    rows = [(check.name, check.state, check.found) for check in checks]
    repairs = [f"{check.name}: {check.repair}" for check in checks if check.repair]
    text = "\n".join([columns(("what", "state", "found"), rows), "", *(repairs or ["Nothing is missing."])])
    answer([asdict(check) for check in checks], text, json)
    return 1 if any(check.state == "FAIL" for check in checks) else 0


def _packages() -> Iterator[Check]:
    told = environment()
    yield Check("python", "ok", told["python"])
    needed = [line.partition(">")[0].strip() for line in requires("closerlook") or () if "extra ==" not in line]
    for name in ("closerlook", *needed):
        try:
            yield Check(name, "ok", version(name))
        except PackageNotFoundError:
            yield Check(name, "FAIL", "not installed", f"pip install {name}")


def _processor() -> Iterator[Check]:
    told = environment()
    yield Check("processor", "ok", f"{told['cores']} cores, {told['system']}, vectors of {told['cpu_capability']}")
    yield Check("threads", "ok", f"torch uses {torch.get_num_threads()}; a step always runs on 1, --jobs run at a time")
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        yield Check("bf16", "ok", "supported by the processor")
    else:
        yield Check(
            "bf16", "note", "emulated, slow", "train with precision fp32; what is judged is read in fp32 anyway"
        )
    yield Check("accelerator", "ok", torch.cuda.get_device_name() if torch.cuda.is_available() else "none; not needed")


def _data() -> Iterator[Check]:
    named = os.environ.get(VARIABLE)
    if named is not None and not Path(named).expanduser().is_dir():
        yield Check(VARIABLE, "FAIL", f"no folder {named}", f"set {VARIABLE} to a folder, or unset it")
    for name, (folder, files, repair) in _DATA.items():
        held = (place.folder for place in places(folder) if all((place.folder / file).is_file() for file in files))
        found = next(held, packaged() if name == NAME else None)
        yield Check(f"data {name}", "ok", str(found)) if found else Check(f"data {name}", "note", "not here", repair)
    yield Check("data digits", "ok", "comes with scikit-learn")


def _disk(runs: Path) -> Iterator[Check]:
    place = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free / _GIGABYTE
    state, repair = ("ok", "") if free > 1 else ("FAIL", "free some space, or choose another folder with --runs")
    yield Check("disk", state, f"{free:.1f} GB free at {place}", repair)
    try:
        with tempfile.TemporaryFile(dir=place):
            yield Check("runs", "ok", f"{runs} can be written")
    except OSError as error:
        yield Check("runs", "FAIL", f"{place}: {error.strerror}", "choose another folder with --runs")
