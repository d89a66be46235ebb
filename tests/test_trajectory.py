"""Trajectories against a dense singular value decomposition, planted planes and closed forms; and the command."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import closerlook as cl
from closerlook.cli import main
from closerlook.errors import MismatchError, UsageError
from conftest import digit_batches, small_net

EXACT = 1e-12  # of numbers of size 1 to 10 in float64
MODEL = nn.Linear(3, 2).double()
TRAIN = digit_batches(100, 50)


def walk(count: int = 6, seed: int = 0, size: int = 8) -> Tensor:
    """Points [count, size] of a random walk with steps of all directions."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=source, dtype=torch.float64).cumsum(0)


def of(points: Tensor) -> cl.Trajectory:
    return cl.trajectory(MODEL, list(points))


def dense(points: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Unit components [k, D] and shares of the variance, from the whole matrix."""
    rows = points.numpy()
    _, values, components = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    return components, values**2 / (values**2).sum()


@pytest.mark.parametrize("seed", range(5))
def test_components_are_those_of_the_dense_decomposition(seed: int) -> None:
    points = walk(seed=seed)
    found = of(points)
    components, shares = dense(points)
    assert found.explained == pytest.approx(shares[:5], abs=EXACT)
    units = found.directions.vectors / torch.tensor(found.directions.norms, dtype=torch.float64)[:, None]
    for axis, unit in enumerate(units):
        # Neighbouring eigenvalues of these walks differ by a tenth or more: the vectors lose one digit.
        sign = np.sign(components[axis] @ unit.numpy())
        assert np.allclose(unit.numpy(), sign * components[axis], rtol=0, atol=100 * EXACT)
    away = (points - points[-1]).numpy()
    assert np.allclose(found.coordinates, away @ units.numpy().T, rtol=0, atol=10 * EXACT)
    left = away - found.coordinates @ units.numpy()
    assert np.allclose(found.off_plane, np.linalg.norm(left, axis=1), rtol=0, atol=10 * EXACT)
    assert found.coordinates[-1].tolist() == [0, 0]
    assert found.off_plane[-1] == 0
    assert found.off_plane[:-1].min() > 0.1


def test_distances_and_turns_are_those_of_plain_numpy() -> None:
    points = walk()
    found, w = of(points), points.numpy()
    moves = np.diff(w, axis=0)
    lengths = np.linalg.norm(moves, axis=1)
    assert found.from_first == pytest.approx(np.linalg.norm(w - w[0], axis=1), abs=10 * EXACT)
    assert found.from_last == pytest.approx(np.linalg.norm(w - w[-1], axis=1), abs=10 * EXACT)
    assert found.step_length == pytest.approx([0, *lengths], abs=10 * EXACT)
    cosines = (moves[:-1] * moves[1:]).sum(1) / lengths[:-1] / lengths[1:]
    assert np.isnan(found.turn[[0, -1]]).all()
    assert found.turn[1:-1] == pytest.approx(cosines, abs=EXACT)


def planted(scale: float = 1.0) -> tuple[Tensor, np.ndarray]:
    """Points in a plane of weight space, far from the origin, and their places on it: more along x than along y."""
    frame = torch.linalg.qr(torch.randn(8, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64))[0]
    x = torch.tensor([-4.0, -3, -1, 1, 3, 0])
    places = torch.stack([x, torch.tensor([1.0, -1, 0.5, 0.5, 1, -2])], 1).double()
    places = places - places.mean(0)
    # Uncorrelated, so that the axes are the components.
    places[:, 1] -= (places[:, 0] @ places[:, 1]) / (places[:, 0] @ places[:, 0]) * places[:, 0]
    return 3.0 + scale * places @ frame.T, scale * (places - places[-1]).numpy()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_path_in_a_plane_is_on_its_plane_at_its_planted_places(scale: float) -> None:
    points, places = planted(scale)
    found = of(points)
    rounding = EXACT * max(scale, 3.0)  # of coordinates of that size
    assert np.abs(found.coordinates).tolist() == [pytest.approx(row, abs=rounding) for row in np.abs(places).tolist()]
    assert found.off_plane.max() < rounding
    assert found.explained[:2].sum() == pytest.approx(1, abs=EXACT)
    variances = places.var(0)
    assert found.explained[:2] == pytest.approx(variances / variances.sum(), abs=EXACT / min(scale, 1))


def test_a_narrow_plane_is_found_as_well_as_a_wide_one() -> None:
    """Inner products square the ratio of the axes: 1e-5 becomes 1e-10, and the plane must not suffer."""
    frame = torch.eye(8, dtype=torch.float64)[:2]
    places = torch.tensor([[-2.0, 1e-5], [0.0, -3e-5], [1.0, 1e-5], [1.0, 1e-5]], dtype=torch.float64)
    found = of(places @ frame)
    assert found.off_plane.max() < EXACT
    assert np.ptp(found.coordinates[:, 1]) == pytest.approx(4e-5, rel=1e-9)
    assert abs(found.directions.cosine) < EXACT


@given(seed=st.integers(0, 10**6), shift=st.floats(-5, 5), turn=st.integers(0, 10**6))
def test_components_do_not_depend_on_a_constant_a_rotation_or_the_order(seed: int, shift: float, turn: int) -> None:
    points = walk(seed=seed)
    rotation = torch.linalg.qr(
        torch.randn(8, 8, generator=torch.Generator().manual_seed(turn), dtype=torch.float64)
    )[0]  # fmt: skip
    plain, moved = of(points), of((points + shift) @ rotation)
    assert moved.explained == pytest.approx(plain.explained, abs=10 * EXACT)
    # Between alike eigenvalues the axes themselves are not determined; distances in the plane are only with the plane.
    gaps = -np.diff(plain.explained[:3])
    if gaps.min() > 0.02:
        assert np.abs(moved.coordinates) == pytest.approx(np.abs(plain.coordinates), abs=1e4 * EXACT)
        assert moved.off_plane == pytest.approx(plain.off_plane, abs=1e4 * EXACT)
    assert moved.step_length == pytest.approx(plain.step_length, abs=100 * EXACT)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(turn))
    assert of(points[order]).explained == pytest.approx(plain.explained, abs=10 * EXACT)


def test_a_random_walk_explains_what_theory_says() -> None:
    """Component k of a long walk in many dimensions holds 6 / (pi k)^2 of the variance (arXiv 1806.08805)."""
    source = torch.Generator().manual_seed(0)
    points = torch.randn(150, 20_000, generator=source).cumsum(0)
    found = cl.trajectory(nn.Linear(99, 200), list(points))
    # 150 steps are not endless, and 20,000 dimensions scatter by about a hundredth.
    assert found.explained[:4] == pytest.approx(6 / (np.pi * np.arange(1, 5)) ** 2, rel=0.03)


def test_signs_put_the_longest_way_to_the_left_and_up() -> None:
    points = walk(seed=3)
    for version in (points, -points):
        x, y = of(version).coordinates.T
        assert x[np.abs(x).argmax()] < 0
        assert y[np.abs(y).argmax()] > 0


def test_names_come_from_the_mapping_and_numbers_from_a_list() -> None:
    points = walk(3)
    assert list(of(points).points) == ["0", "1", "2"]
    found = cl.trajectory(MODEL, {0: points[0], 12: points[1], "end": points[2]})
    assert list(found.points) == ["0", "12", "end"]
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["checkpoint"] == ["0", "12", "end"]
    assert stored["turn"][0] is None
    assert stored["turn"][1] == found.turn[1]
    frame = found.to_frame()
    assert frame["x"].tolist() == found.coordinates[:, 0].tolist()
    assert len(frame) == 3


def test_what_is_no_trajectory_is_refused_with_a_reason() -> None:
    points = walk(3)
    straight = torch.stack([points[0], (points[0] + points[2]) / 2, points[2]])
    broken = points.clone()
    broken[1, 0] = float("nan")
    refused: list[tuple[Any, type[Exception], str]] = [
        (lambda: of(points[:2]), UsageError, "at least three checkpoints, not 2"),
        (lambda: of(straight), UsageError, "lie on one line"),
        (lambda: of(points[[0, 0, 0]]), UsageError, "or all are equal"),
        (lambda: of(broken), UsageError, "point 1 .* holds NaN"),
        (lambda: cl.trajectory(MODEL, [*points, torch.zeros(5)]), MismatchError, "5 entries for a space of 8"),
        (lambda: cl.trajectory(MODEL, [*points, torch.zeros(8)]), MismatchError, "float32"),
    ]
    for call, error, message in refused:
        with pytest.raises(error, match=message):
            call()


# On a training ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run() -> cl.TrainResult:
    return cl.train(small_net(), TRAIN, epochs=4, lr=0.05, snapshots=["1it", "1ep", "3ep"])


def test_the_surface_of_a_training_shows_its_checkpoints_where_they_are(run: cl.TrainResult) -> None:
    model = small_net()
    way = cl.trajectory(model, run.snapshots)
    found = cl.surface(model, way, TRAIN, grid=(3, 2), batch_stats="keep")
    assert found.path == ("0", "1", "2", "6", "8")
    for name, (x, y), off in zip(found.path, way.coordinates, way.off_plane, strict=True):
        mark = found.marks[name]
        # The plane's own points are float32: the weights here are of size 5, the path of size 1.
        assert (mark.x, mark.y, mark.distance) == pytest.approx((x, y, off), abs=1e-5)
    box = found.x[0], found.x[-1]
    assert box[0] < way.coordinates[:, 0].min() < way.coordinates[:, 0].max() < box[1]
    again = cl.Surface.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.path == found.path
    ax = found.plot()
    assert [text.get_text().split(" (")[0] for text in ax.texts][-2:] == ["0", "8"]
    assert ax.get_xlabel() == f"component 1, {way.explained[0]:.1%} of variance (L2)"


def test_the_last_checkpoint_is_read_at_the_origin(run: cl.TrainResult) -> None:
    model = small_net()
    way = cl.trajectory(model, run.snapshots)
    origin = way.plane().at([0, 0])
    assert torch.equal(origin.vector, run.point.vector)
    first = way.plane().at(way.coordinates[0])
    missed = float((first.vector.double() - run.snapshots[0].vector.double()).norm())
    assert missed == pytest.approx(way.off_plane[0], abs=1e-5)


def test_the_path_alone_is_drawn(run: cl.TrainResult) -> None:
    way = cl.trajectory(small_net(), run.snapshots)
    ax = way.plot()
    line = ax.get_lines()[0]
    assert np.allclose(np.array(line.get_data()).T, way.coordinates)
    assert "component 2" in ax.get_ylabel()


def test_a_mark_beside_the_path_needs_a_name_of_its_own(run: cl.TrainResult) -> None:
    model = small_net()
    way = cl.trajectory(model, run.snapshots)
    with pytest.raises(UsageError, match="a checkpoint of the trajectory is called '8' too"):
        cl.surface(model, way, TRAIN, grid=(2, 2), mark={"8": small_net(1)})


# The commands ----------------------------------------------------------------------------------------------------

MODULE = """
import torch
from torch import nn


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 3))


def part(n, seed):
    targets = torch.arange(n) % 3
    noise = torch.randn(n, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    return noise + targets[:, None, None, None], targets


def data():
    return part(60, 0), part(12, 1), part(30, 2)
"""
ON = ["--model", "users_of_trajectories:net", "--data", "users_of_trajectories:data", "--splits", "train"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("user")
    (folder / "users_of_trajectories.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        import users_of_trajectories as own

        torch.manual_seed(0)
        net = own.net()
        trained = cl.train(net, [own.part(60, 0)], lr=0.3, epochs=9, snapshots=["1it", "4it", "6it"], out="training")
        for step, point in trained.snapshots.items():
            torch.save(cl.WeightSpace(net).state_dict(point), f"c{step}.pt")
        yield folder
    sys.modules.pop("users_of_trajectories")


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    status = main([*words, "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else None, err


def test_a_trajectory_of_files_and_of_a_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import users_of_trajectories as own

    names = ["c0.pt", "c1.pt", "c4.pt", "c6.pt", "c9.pt"]
    words = ["trajectory", *names, *ON, "--grid", "4", "3"]
    status, priced, _ = command(capsys, *words, "--dry-run")
    assert (status, priced["steps"][0]["recipe"]["kind"]) == (0, "trajectory")
    assert priced["steps"][0]["images"] == 4 * 3 * (15 + 45)
    status, found, err = command(capsys, *words)
    assert (status, err.count(" done")) == (0, 1)
    way = cl.trajectory(own.net(), names)
    assert found["trajectory"]["checkpoint"] == names
    for name in ("from_first", "from_last", "step_length", "off_plane"):
        assert found["trajectory"][name] == getattr(way, name).tolist()
    assert found["path"] == names
    files = [Path(file) for file in found["files"]]
    assert [file.name for file in files] == [
        "trajectory.json", "trajectory.csv", "trajectory-train.svg", "trajectory-train.png",
    ]  # fmt: skip
    rows = list(csv.DictReader(files[1].read_text().splitlines()))
    assert [row["checkpoint"] for row in rows] == names
    assert list(rows[0]) == ["checkpoint", "from_first", "from_last", "step_length", "turn", "x", "y", "off_plane"]

    again = command(capsys, *words)
    assert (again[0], again[1], again[2].count("reused")) == (0, found, 1)
    status, of_run, _ = command(capsys, "trajectory", "training", *ON, "--grid", "4", "3")
    assert of_run["trajectory"]["checkpoint"] == ["step 0", "step 1", "step 4", "step 6", "step 9"]
    assert of_run["values"] == found["values"]


def test_a_surface_around_one_checkpoint(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import users_of_trajectories as own

    words = ["surface", "c9.pt", *ON, "--grid", "3", "3", "--radius", "0.5", "--direction-seed", "4", "--directions"]
    read = {}
    for kind in ("random", "random-layer", "hessian"):
        status, found, _ = command(capsys, *words, kind)
        assert (status, found["marks"], found["directions"]["seed"]) == (0, {"c9.pt": [0, 0, 0]}, 4)
        read[kind] = np.array(found["values"]["train_loss"])
    # The checkpoint is in the middle whatever the directions, and nothing else is the same.
    assert read["random"][1, 1] == read["random-layer"][1, 1] == read["hessian"][1, 1]
    assert min(np.abs(read["random"] - read[other])[0, 0] for other in ("random-layer", "hessian")) > 1e-4
    status, found, _ = command(capsys, *words, "random", "--mark", "c0.pt")
    net = own.net()
    plane = cl.random_directions(net, "c9.pt", seed=4).plane()
    (x, y), off = plane.project(cl.WeightSpace(net).point("c0.pt"))
    assert found["marks"]["c0.pt"] == pytest.approx([x, y, off], abs=1e-6)


def test_settings_of_directions_that_are_not_asked_for_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(capsys, "surface", "c0.pt", "c4.pt", "c9.pt", *ON, "--radius", "3")[0] == 2


def test_the_page_stands_beside_the_figure(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly")
    status, found, _ = command(
        capsys, "trajectory", "training", *ON, "--grid", "3", "3", "--out", "out", "--interactive"
    )
    assert (status, Path(found["files"][-1]).as_posix()) == (0, "out/trajectory-train.html")
    assert "component 1" in Path("out/trajectory-train.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trajectory"], "at least three checkpoints, not nothing"),
        (["trajectory", "c0.pt", "c1.pt"], "not c0.pt and c1.pt"),
        (["trajectory", "c0.pt"], "a trajectory takes a training's run"),
        (["trajectory", "runs"], "runs keeps 0 snapshots, a trajectory needs three"),
        (["trajectory", "training", "--grid", "1", "3"], "at least two columns and two rows"),
        (["surface", "c0.pt"], "a plane goes through three checkpoints, not 1 checkpoint; around one take"),
        (["surface", "c0.pt", "c1.pt"], "not 2 checkpoints"),
        (["surface", "c0.pt", "c1.pt", "c4.pt", "--directions", "random"], "leave B and C out"),
        (["surface", "c0.pt", "--directions", "random", "--radius", "0"], "does not lie between 0 and inf"),
    ],
)
def test_wrong_words_are_answered(place: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    Path("runs").mkdir(exist_ok=True)
    status, _, err = command(capsys, *words, *ON)
    assert status == 2
    assert said in " ".join(err.split())
