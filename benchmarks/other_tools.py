"""What other public tools return on the same small data, beside ours and an oracle; write results/other_tools.json.

Run it with ``python benchmarks/other_tools.py``. Every tool is installed from PyPI into an environment that is thrown
away; it sees torch, numpy and scipy of this one. Without network nothing is written.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

OUT = Path(__file__).with_name("results") / "other_tools.json"
Array = NDArray[Any]
Case = tuple[Array, Array]
N = 300

# What each tool needs besides what this environment has; installed without what these need in turn.
NEEDS = {
    "repsim==0.1.5": (),
    "cca-zoo==4.0.1": ("tensorly",),
    "ckatorch==1.0.3": ("PyYAML", "seaborn"),
    "pytorch-cka==1.1.3": (),
    "torch-cka==0.21": (),
    "cka-pytorch==1.1.3": ("torchmetrics", "lightning", "lightning-utilities", "seaborn"),
    "deep-reps==0.0.6": (),
    "rsatoolbox==0.3.2": ("h5py", "scikit-image", "lazy-loader", "ImageIO", "tifffile"),
    "similarity-repository==0.0.1": (),
}  # fmt: skip


def cases() -> dict[str, Case]:
    """Pairs of representations of 300 digits, most of them with a known answer."""
    rng = np.random.default_rng(0)
    images = load_digits().data[:N] / 16
    x = np.maximum(images @ rng.standard_normal((64, 40)) / 2, 0)
    y = np.maximum(images @ rng.standard_normal((64, 30)) / 2, 0)
    rotation = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    few = rng.standard_normal((N, 10))
    return {
        "two layers": (x, y),
        "a copy": (x, x),
        "rotated, scaled, moved": (x, 3 * x @ rotation + 5),
        "invertible map": (x, x @ rng.standard_normal((40, 40))),
        "rows shuffled": (x, y[rng.permutation(N)]),
        "10 directions in 40 and 30 units": (few @ rng.standard_normal((10, 40)), few @ rng.standard_normal((10, 30))),
        "two layers + 1000, float32": ((x + 1000).astype(np.float32), (y + 1000).astype(np.float32)),
    }


def oracle(x: Array, y: Array) -> dict[str, float]:
    """The textbook definitions by singular values in float64."""
    x, y = (side.astype(np.float64) - side.mean(0, dtype=np.float64) for side in (x, y))
    (u, s, _), (v, t, _) = (np.linalg.svd(side, full_matrices=False) for side in (x, y))
    rho = np.linalg.svd(u[:, s > 1e-6 * s[0]].T @ v[:, t > 1e-6 * t[0]], compute_uv=False)
    k, m = (int((np.cumsum(each**2) / (each**2).sum() < 0.99).sum()) + 1 for each in (s, t))
    kept = np.linalg.svd(u[:, :k].T @ v[:, :m], compute_uv=False)
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return {
        "cca": float(rho.mean()), "cca:r2": float((rho**2).mean()), "svcca": float(kept.mean()),
        "svcca:r2": float((kept**2).mean()), "cka:biased": float(np.linalg.norm(x.T @ y) ** 2 / norms),
        "cka": _debiased(x @ x.T, y @ y.T),
        "procrustes": float(np.linalg.norm(x.T @ y, "nuc") / np.linalg.norm(x) / np.linalg.norm(y)),
    }  # fmt: skip


def _debiased(k: Array, m: Array) -> float:
    def hsic(a: Array, b: Array) -> float:
        a, b = a - np.diag(np.diag(a)), b - np.diag(np.diag(b))
        ends = a.sum() * b.sum() / ((N - 1) * (N - 2)) - 2 * (a.sum(0) @ b.sum(0)) / (N - 2)
        return float((a * b).sum() + ends)

    return hsic(k, m) / float(np.sqrt(hsic(k, k) * hsic(m, m)))


def ours(x: Array, y: Array) -> dict[str, float]:
    """The same with closerlook."""
    from closerlook.similarity import Moments, chosen

    moments = Moments()
    moments.update(x, y)
    names = ["cca", "cca:r2", "svcca", "svcca:r2", "pwcca", "cka:biased", "cka", "procrustes"]
    return {name: read(moments.pair()).value for name, read in chosen(names, insist=True).items()}


Tool = Callable[[Array, Array], Mapping[str, Any]]


def repsim(x: Array, y: Array) -> Mapping[str, Any]:
    """Repsim 0.1.5; its summaries are called yanai and pillai, its estimators gretton and song."""
    import repsim as tool

    return {
        "cca pillai": tool.cca([x, y], "pillai")[0, 1], "cca yanai": tool.cca([x, y], "yanai")[0, 1],
        "svcca pillai": tool.svcca([x, y], "pillai")[0, 1], "pwcca [0, 1]": tool.pwcca([x, y])[0, 1],
        "pwcca [1, 0]": tool.pwcca([x, y])[1, 0], "cka gretton": tool.cka([x, y], "linear", "gretton")[0, 1],
        "cka song": tool.cka([x, y], "linear", "song")[0, 1],
    }  # fmt: skip


def cca_zoo(x: Array, y: Array) -> Mapping[str, Any]:
    """cca-zoo 4.0.1: the score of CCA with as many components as the narrower side has units."""
    from cca_zoo.linear import CCA

    return {"cca score": CCA(n_components=min(x.shape[1], y.shape[1])).fit([x, y]).score([x, y])}


def ckatorch(x: Array, y: Array) -> Mapping[str, Any]:
    """Ckatorch 1.0.3, its function of two matrices."""
    from ckatorch.core import cka_base

    sides = torch.from_numpy(x), torch.from_numpy(y)
    return {"cka_base": cka_base(*sides).item(), "cka_base unbiased": cka_base(*sides, unbiased=True).item()}


def pytorch_cka(x: Array, y: Array) -> Mapping[str, Any]:
    """pytorch-cka 1.1.3, its function of two matrices."""
    from cka import cka_from_features

    return {"cka_from_features": cka_from_features(torch.from_numpy(x), torch.from_numpy(y)).item()}


def deep_reps(x: Array, y: Array) -> Mapping[str, Any]:
    """deep-reps 0.0.6; its package needs open_clip to be imported, its measures do not."""
    import types

    package = next(Path(place) / "deep_reps" for place in sys.path if (Path(place) / "deep_reps").is_dir())
    sys.modules["deep_reps"] = module = types.ModuleType("deep_reps")
    module.__path__ = [str(package)]
    from deep_reps.cca_measures import compute_standard_cca, compute_standard_svcca, compute_yanai_cca
    from deep_reps.rsm_measures import centered_kernel_alignment

    sides = torch.from_numpy(x), torch.from_numpy(y)
    few = [torch.from_numpy(side[:60]).float() for side in (x, y)]  # its double loop over rows is slow
    return {
        "compute_standard_cca": compute_standard_cca(*sides), "compute_yanai_cca": compute_yanai_cca(*sides),
        "compute_standard_svcca": compute_standard_svcca(*sides),
        "centered_kernel_alignment, 60 rows": float(centered_kernel_alignment(*few)),
    }  # fmt: skip


def rsatoolbox(x: Array, y: Array) -> Mapping[str, Any]:
    """Rsatoolbox 0.3.2: the whitened cosine of Euclidean dissimilarities, which is linear CKA (100 rows)."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm, compare

    rdms = [calc_rdm(Dataset(side[:100].astype(np.float64)), method="euclidean") for side in (x, y)]
    return {"cosine_cov, 100 rows": compare(*rdms, method="cosine_cov").item()}


def similarity_repository(x: Array, y: Array) -> Mapping[str, Any]:
    """similarity-repository 0.0.1, through its own front door."""
    import similarity

    return {"measure.svcca.cca": similarity.make("measure.svcca.cca")(x, y)}


def google(*names: str) -> Mapping[str, Any]:
    """Modules of the copy of google/svcca that similarity-repository ships, loaded past its front door."""
    import importlib.util
    import types

    place = next(Path(p) / "similarity" for p in sys.path if (Path(p) / "similarity").is_dir()) / "backend" / "svcca"
    sys.modules["svcca"] = package = types.ModuleType("svcca")
    package.__path__ = [str(place)]
    modules: dict[str, Any] = {}
    for name in names:
        spec = importlib.util.spec_from_file_location(f"svcca.{name}", place / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        modules[name] = sys.modules[f"svcca.{name}"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    return modules


def google_cca(x: Array, y: Array) -> Mapping[str, Any]:
    """The reference code of SVCCA, its CCA; with the epsilon of its tutorials."""
    found = google("cca_core")["cca_core"].get_cca_similarity(x.T, y.T, epsilon=1e-10, verbose=False)
    return {"get_cca_similarity": float(np.mean(found["cca_coef1"]))}


def google_pwcca(x: Array, y: Array) -> Mapping[str, Any]:
    """The reference code of PWCCA."""
    value = google("cca_core", "pwcca")["pwcca"].compute_pwcca(x.T, y.T, epsilon=1e-10)[0]
    return {"compute_pwcca": float(np.real(value))}


MATRICES: Mapping[str, tuple[str, Tool]] = {
    "repsim": ("repsim==0.1.5", repsim),
    "cca-zoo": ("cca-zoo==4.0.1", cca_zoo),
    "ckatorch": ("ckatorch==1.0.3", ckatorch),
    "pytorch-cka": ("pytorch-cka==1.1.3", pytorch_cka),
    "deep-reps": ("deep-reps==0.0.6", deep_reps),
    "rsatoolbox": ("rsatoolbox==0.3.2", rsatoolbox),
    "similarity-repository": ("similarity-repository==0.0.1", similarity_repository),
    "google/svcca cca": ("similarity-repository==0.0.1", google_cca),
    "google/svcca pwcca": ("similarity-repository==0.0.1", google_pwcca),
}


def network(seed: int) -> nn.Sequential:
    """Two layers of 40 and 30 units with ReLU in place."""
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(fc1=nn.Linear(64, 40), relu1=nn.ReLU(inplace=True), fc2=nn.Linear(40, 30), relu2=nn.ReLU(True))
    )


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """1000 digits and their classes."""
    values, labels = load_digits(return_X_y=True)
    return torch.from_numpy(values[:1000]).float() / 16, torch.from_numpy(labels[:1000])


Grid = Callable[[nn.Module, nn.Module, DataLoader[Any], list[str]], Any]


def torch_cka(a: nn.Module, b: nn.Module, loader: DataLoader[Any], layers: list[str]) -> Any:
    """torch-cka 0.21."""
    from torch_cka import CKA

    tool = CKA(a, b, "a", "b", model1_layers=layers, model2_layers=layers)
    tool.compare(loader)
    return tool.export()["CKA"].detach().numpy()


def cka_pytorch(a: nn.Module, b: nn.Module, loader: DataLoader[Any], layers: list[str]) -> Any:
    """cka-pytorch 1.1.3, one pass."""
    from cka_pytorch import CKACalculator

    tool = CKACalculator(a, b, model1_layers=layers, model2_layers=layers, verbose=False)
    return tool.calculate_cka_matrix(loader, num_epochs=1).numpy()


def pytorch_cka_grid(a: nn.Module, b: nn.Module, loader: DataLoader[Any], layers: list[str]) -> Any:
    """pytorch-cka 1.1.3."""
    from cka import compute_cka

    return compute_cka(a, b, loader, layers=layers, progress=False)[0].numpy()


def ckatorch_grid(a: nn.Module, b: nn.Module, loader: DataLoader[Any], layers: list[str]) -> Any:
    """Ckatorch 1.0.3, one pass."""
    from ckatorch import CKA

    batches = DataLoader([{"input": x} for x, _ in loader.dataset], loader.batch_size, shuffle=True)
    return CKA(a, b, layers, first_name="a", second_name="b")(batches, epochs=1).numpy()


GRIDS: Mapping[str, tuple[str, Grid]] = {
    "torch-cka": ("torch-cka==0.21", torch_cka),
    "cka-pytorch": ("cka-pytorch==1.1.3", cka_pytorch),
    "pytorch-cka": ("pytorch-cka==1.1.3", pytorch_cka_grid),
    "ckatorch": ("ckatorch==1.0.3", ckatorch_grid),
}


def on_networks(grid: Grid) -> dict[str, Any]:
    """A copy under a shuffling loader, and two networks in batches: in random order, ordered by class, all at once."""
    x, y = images()
    orders = {
        "in random order": torch.randperm(len(y), generator=torch.Generator().manual_seed(0)),
        "ordered by class": y.argsort(stable=True),
    }
    layers = ["fc1", "relu1", "relu2"]

    def run(other: int, data: tuple[torch.Tensor, torch.Tensor], size: int, shuffle: bool) -> Any:
        torch.manual_seed(0)
        pair = network(0), network(other)
        torch.manual_seed(0)
        return grid(*pair, DataLoader(TensorDataset(*data), size, shuffle=shuffle), layers)

    runs = {"a copy, shuffling loader": lambda: run(0, (x, y), 100, True)}
    for name, order in orders.items():
        runs[f"two networks, batches of 100 {name}"] = partial(run, 1, (x[order], y[order]), 100, False)
    runs["two networks, all at once"] = lambda: run(1, (x, y), 1000, False)
    return {name: _diagonal(made) for name, made in runs.items()}


def _diagonal(made: Callable[[], Any]) -> Any:
    try:
        return [float(value) for value in np.diag(np.asarray(made()))]
    except Exception as error:  # of any kind: it is what this tool returns here
        return f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"


def ours_on_networks(a: nn.Module, b: nn.Module, loader: DataLoader[Any], layers: list[str]) -> Any:
    """The same with closerlook."""
    import closerlook as cl

    return cl.compare(a, b, loader, layers, measures=["cka"]).tables["value"]["cka"]


def worker(name: str, where: Path) -> dict[str, Any]:
    """Everything of one tool, in its own environment."""
    stored = np.load(where)
    found: dict[str, Any] = {}
    if name in MATRICES:
        found["matrices"] = {}
        for case in dict.fromkeys(key[:-2] for key in stored.files):
            try:
                values = MATRICES[name][1](stored[f"{case}.x"], stored[f"{case}.y"])
                found["matrices"][case] = {key: float(value) for key, value in values.items()}
            except Exception as error:  # of any kind: it is what this tool returns here
                found["matrices"][case] = f"{type(error).__name__}: {(str(error) or '-').splitlines()[0][:160]}"
    if name in GRIDS:
        found["networks"] = on_networks(GRIDS[name][1])
    return found


def environment(folder: Path) -> Path:
    """Python of a new environment that also sees the packages of this one."""
    venv.create(folder, with_pip=True)
    here = [place for place in sys.path if place.endswith("site-packages")]
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "zz_shared.pth").write_text("\n".join(here) + "\n")
    return folder / "bin" / "python"


def main() -> None:
    """Install, run and write."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    made = cases()
    found: dict[str, Any] = {
        "oracle": {"matrices": {case: oracle(*pair) for case, pair in made.items()}},
        "closerlook": {
            "matrices": {case: ours(*pair) for case, pair in made.items()}, "networks": on_networks(ours_on_networks),
        },
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "cases.npz"
        arrays = {f"{case}.{side}": each for case, pair in made.items() for side, each in zip("xy", pair, strict=True)}
        np.savez(where, **arrays)  # type: ignore[arg-type]
        python = environment(Path(folder) / "venv")
        for name in {**MATRICES, **GRIDS}:
            package = {**MATRICES, **GRIDS}[name][0]
            wanted = [python, "-m", "pip", "install", "--quiet", "--no-deps", package, *NEEDS[package]]
            if subprocess.run(wanted, check=False, capture_output=True).returncode:
                print(f"{package} could not be installed")
                continue
            command = [python, "-P", __file__, "--worker", name, str(where)]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            lines = done.stdout.strip().splitlines()
            found[name] = {"package": package, **(json.loads(lines[-1]) if lines else {"error": done.stderr[-300:]})}
    if len(found) == 2:
        print("no tool could be installed; the stored results stay as they are")
        return
    from closerlook.files import write_json

    write_json(OUT, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--worker" in sys.argv:
        print(json.dumps(worker(sys.argv[-2], Path(sys.argv[-1]))))
    else:
        main()
