"""Activations of layers: what the hooks see is what the layer returned, and nothing is left behind."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import closerlook as cl
from closerlook import files
from closerlook.activations import Activations, Handling, Reader, activations, layers, reading, units_of
from closerlook.errors import LayerError, LoaderError, StoreError, UsageError
from conftest import digit_batches, small_net

X = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
BATCHES = [X[:8], X[8:]]


def net(inplace: bool = True) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        OrderedDict(
            fc1=nn.Linear(6, 5), relu1=nn.ReLU(inplace), drop=nn.Dropout(), fc2=nn.Linear(5, 4), relu2=nn.ReLU(),
        )
    )


def names(model: nn.Module, patterns: list[str], batch=X) -> list[str]:
    with reading(model, patterns) as reader:
        return [layer.name for layer in reader.start(batch)]


class Twice(nn.Module):
    """One ReLU called twice, and functions that change its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.relu = nn.Linear(6, 5), nn.Linear(5, 5), nn.ReLU()
        self.never = nn.Linear(2, 2)
        self.repeats = 2

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        h.mul_(0)
        h = self.fc2(h + 1)
        for _ in range(self.repeats):
            h = self.relu(h - 0.1)
        return h


class Sequences(nn.Module):
    """An LSTM (a tuple), attention (a tuple with None), a dict, and a sequence-first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.turned = nn.Linear(4, 2)
        self.heads = Heads()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h, _ = self.lstm(x)
        h, _ = self.attention(h, h, h, need_weights=False)
        self.turned(h.transpose(0, 1))
        return self.heads(h)


class Heads(nn.Module):
    def forward(self, h: Tensor) -> dict[str, Tensor]:
        return {"tokens": h, "pooled": h.mean(1), "best": h.argmax(2)}


def test_patterns_choose_in_the_order_of_the_forward_pass() -> None:
    model = small_net()
    batch = digit_batches(8)[0]
    assert names(model, ["*relu*"], batch) == ["relu1", "relu2"]
    assert names(model, ["head", "conv?"], batch) == ["conv1", "conv2", "head"]
    assert names(model, ["*"], batch) == [
        "conv1", "norm1", "relu1", "conv2", "norm2", "relu2", "pool", "head",
    ]  # fmt: skip
    nested = nn.Sequential(OrderedDict(features=net(), head=nn.Linear(4, 2)))
    assert names(nested, ["features.*"]) == ["features.fc1", "features.relu1", "features.fc2", "features.relu2"]


def test_a_pattern_without_a_layer_is_an_error_with_close_names() -> None:
    with pytest.raises(LayerError, match=r"no layer matches 'relu9'; did you mean relu\d or relu\d"):
        names(net(), ["fc1", "relu9"])
    with pytest.raises(LayerError, match=r"there is fc1, relu1, drop, fc2, relu2, .model.. Only modules"):
        names(net(), ["zzz*"])
    with pytest.raises(LayerError, match="no layer matches 'never'"):
        names(Twice(), ["never"])  # it exists, and the forward pass does not call it


def test_layers_that_hand_on_a_tensor_are_read_once_unless_named() -> None:
    model = nn.Sequential(OrderedDict(block=net(), flatten=nn.Flatten()))
    with reading(model) as reader:
        same = {layer.name: layer.same_as for layer in reader.every(X)}
    assert same == {
        "block.fc1": None, "block.relu1": None, "block.drop": "block.relu1", "block.fc2": None, "block.relu2": None,
        "block": "block.relu2", "flatten": "block.relu2", "(model)": "block.relu2",
    }  # fmt: skip
    assert names(model, ["block*"]) == ["block.fc1", "block.relu1", "block.fc2", "block.relu2"]
    assert names(model, ["block", "block.relu?"]) == ["block.relu1", "block.relu2", "block"]
    assert names(model, ["bloc[k]"]) == ["block"]


def test_what_comes_in_place_after_a_layer_does_not_reach_it() -> None:
    model = net(inplace=True)
    rows = activations(model, BATCHES, ["fc1", "relu1"]).rows
    before = nn.functional.linear(X, model.fc1.weight, model.fc1.bias).detach()
    torch.testing.assert_close(rows["fc1"], before)
    torch.testing.assert_close(rows["relu1"], before.relu())
    assert (before < 0).any()
    twice = Twice()
    torch.testing.assert_close(activations(twice, BATCHES, ["fc1"]).rows["fc1"], twice.fc1(X).detach())


def test_calls_of_one_module_are_numbered() -> None:
    model = Twice()
    rows = activations(model, BATCHES, ["fc2", "relu"]).rows
    assert list(rows) == ["fc2", "relu#1", "relu#2"]
    torch.testing.assert_close(rows["relu#1"], (rows["fc2"] - 0.1).relu())
    torch.testing.assert_close(rows["relu#2"], (rows["relu#1"] - 0.1).relu())
    assert names(model, ["relu#2"]) == ["relu#2"]
    with pytest.raises(LayerError, match="did you mean relu#2 or relu#1"):
        names(model, ["relu#3"])


def test_another_number_of_calls_in_a_later_batch_is_an_error() -> None:
    model = Twice()
    with reading(model, ["relu#1"]) as reader:
        reader.start(X)
        model.repeats = 3
        with pytest.raises(LayerError, match="relu was called 3 times for this batch and 2 times for the first"):
            reader.rows(X)


def test_tuples_and_dicts() -> None:
    model, x = Sequences(), torch.randn(5, 7, 3)
    rows = activations(model, [x], ["lstm", "lstm:0", "attention", "heads:pooled"], tokens="mean").rows
    assert list(rows) == ["lstm", "lstm:0", "attention", "heads:pooled"]
    torch.testing.assert_close(rows["lstm"], model.lstm(x)[0].mean(1).detach())
    assert torch.equal(rows["lstm"], rows["lstm:0"])
    assert rows["heads:pooled"].shape == (5, 4)
    torch.testing.assert_close(rows["attention"], rows["heads:pooled"])
    assert names(model, ["*:pooled"], x) == ["heads:pooled"]  # the same dict leaves the model itself


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("turned", r"layer turned cannot be compared: the first dimension of its output \(7, 5, 2\) is not the 5 ex"),
        ("lstm:1.0", "first dimension of its output"),
        ("heads:best", "it returns int64, no real numbers"),
        ("heads:middle", "heads:middle cannot be compared: it has no output 'middle'; there is tokens, pooled, best"),
        ("attention:1", "it returns no tensor"),
        ("lstm:0.0", "there is nothing inside a Tensor"),
    ],
)
def test_outputs_that_cannot_be_compared(pattern: str, said: str) -> None:
    with pytest.raises(LayerError, match=said):
        activations(Sequences(), [torch.randn(5, 7, 3)], [pattern])
    assert "turned" not in names(Sequences(), ["*"], torch.randn(5, 7, 3))


def test_handlings_of_maps_and_tokens() -> None:
    maps = torch.randn(3, 2, 4, 5)
    torch.testing.assert_close(Handling("mean").rows(maps), maps.mean((2, 3)))
    positions = Handling("positions").rows(maps)
    assert torch.equal(positions.reshape(3, 4, 5, 2), maps.permute(0, 2, 3, 1))
    assert torch.equal(Handling("flatten").rows(maps), maps.reshape(3, 40))
    assert torch.equal(Handling("spectral").rows(maps), maps)
    tokens = torch.randn(3, 4, 6)
    torch.testing.assert_close(Handling().rows(tokens), tokens.mean(1))
    assert torch.equal(Handling(tokens="first").rows(tokens), tokens[:, 0])
    assert torch.equal(Handling(tokens="positions").rows(tokens), tokens.reshape(12, 6))
    assert torch.equal(Handling(tokens="flatten").rows(tokens), tokens.reshape(3, 24))
    assert torch.equal(Handling().rows(torch.arange(3.0)), torch.arange(3.0)[:, None])


@pytest.mark.parametrize("conv", ["mean", "positions", "flatten", "spectral"])
@pytest.mark.parametrize("tokens", ["mean", "positions", "first", "flatten"])
def test_rows_have_the_announced_form_and_share_no_memory(conv, tokens) -> None:
    handling = Handling(conv, tokens)
    for shape in [(4,), (4, 3), (4, 3, 2), (4, 3, 2, 5), (4, 3, 2, 5, 2)]:
        output = torch.randn(shape)
        rows = handling.rows(output)
        places = handling.positions(shape)
        assert rows.shape == (4 * torch.Size(places).numel(), *handling.form(shape))
        kept = rows.clone()
        output.zero_()
        assert torch.equal(rows, kept)
    with pytest.raises(UsageError, match="unknown conv handling 'average'; choose one of mean, positions"):
        Handling("average")


def test_forward_passes_are_in_full_precision() -> None:
    model = net()
    expected = activations(model, BATCHES, ["fc2"]).rows["fc2"]
    with torch.autocast("cpu", torch.bfloat16):
        found = activations(model, BATCHES, ["fc2"]).rows["fc2"]
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(found, expected)
    with pytest.raises(LayerError, match=r"layer fc1 computes in bfloat16.*compare model.float\(\)"):
        activations(net().bfloat16(), [X.bfloat16()])


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.inner(x).float()


def test_a_model_that_lowers_the_precision_itself_is_refused() -> None:
    with pytest.raises(LayerError, match=r"layer inner\.fc1 computes in bfloat16"):
        activations(Autocast(), BATCHES)
    assert activations(Autocast(), BATCHES, ["(model)"]).rows["(model)"].dtype == torch.float32


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.calls = nn.BatchNorm1d(6), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.norm.running_mean += 1
        if self.calls == 3:
            raise RuntimeError("third call")
        return self.norm(x) + 0 * torch.rand(1)


def test_the_model_comes_back_as_it_was_after_an_exception() -> None:
    model = Failing().train()
    model.norm.eval()
    own = model.norm.register_forward_hook(lambda *given: None)
    state = torch.get_rng_state()
    with torch.enable_grad(), pytest.raises(RuntimeError, match="third call"):
        activations(model, BATCHES)
    assert torch.is_grad_enabled()
    assert (model.training, model.norm.training) == (True, False)
    assert torch.equal(model.norm.running_mean, torch.zeros(6))
    assert list(model.norm._forward_hooks) == [own.id]
    assert not model._forward_hooks
    assert torch.equal(state, torch.get_rng_state())


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.after = nn.Linear(6, 5), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(nn.functional.dropout(self.fc(x)))  # training=True is the function's default


def test_noise_in_eval_mode_is_refused_where_it_begins() -> None:
    with pytest.raises(LayerError, match="layer after gives other values for the same batch in eval mode"):
        activations(Noisy(), BATCHES)
    assert list(activations(Noisy(), BATCHES, ["fc"]).rows) == ["fc"]


def test_layers_are_listed_with_what_their_units_would_be() -> None:
    listed = {layer.name: layer for layer in layers(small_net(), digit_batches(8))}
    conv = listed["conv2"]
    assert (conv.kind, conv.shape, conv.parameters) == ("Conv2d", (8, 8, 4, 4), 8 * 6 * 9 + 8)
    assert units_of(conv) == {"mean": 8, "positions": (8, 16), "flatten": 128, "spectral": (8, 12)}
    assert units_of(listed["head"]) == {"as it is": 10}
    assert listed["(model)"].parameters == sum(value.numel() for value in small_net().parameters())
    sequence = {layer.name: layer for layer in layers(Sequences(), [torch.randn(5, 7, 3)])}
    assert units_of(sequence["lstm"]) == {"mean": 4, "positions": (4, 7), "first": 4, "flatten": 28}
    assert units_of(sequence["turned"]) == {}


def test_layers_are_read_in_eval_mode_without_gradients() -> None:
    model = small_net().train()
    batches = digit_batches()
    rows = activations(model, batches, ["head"]).rows["head"]
    assert not rows.requires_grad
    assert model.training
    model.eval()
    torch.testing.assert_close(rows, torch.cat([model(x) for x, _ in batches]).detach())


@pytest.mark.filterwarnings("ignore")  # of torch.compile's own imports
def test_compiled_and_wrapped_models_are_read_under_their_plain_names() -> None:
    model = net()
    expected = activations(model, BATCHES)
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        wrapped(X)
        found = activations(wrapped, BATCHES)
        assert list(found.rows) == list(expected.rows)
        assert all(torch.equal(found.rows[name], expected.rows[name]) for name in expected.rows)
    model.compile(backend="eager")
    model(X)
    assert list(activations(model, BATCHES).rows) == list(expected.rows)


def test_batches_of_several_forms() -> None:
    y = torch.zeros(12, dtype=torch.long)
    expected = activations(net(), [X], ["fc2"]).rows["fc2"]
    for batch in ((X, y), (X,), [X, y], {"x": X, "y": y}, {"input": X, "labels": y}):
        found = activations(net(), [batch], ["fc2"])
        assert torch.equal(found.rows["fc2"], expected)
        assert found.n == 12
    with pytest.raises(LoaderError, match="for other forms pass batch_fn"):
        activations(net(), [(X, y, y)])

    def third(model: nn.Module, batch: tuple[Tensor, ...]) -> cl.Output:
        return cl.Output(model(batch[2]).sum(1), None)

    assert torch.equal(activations(net(), [(y, y, X)], ["fc2"], batch_fn=third).rows["fc2"], expected)
    with pytest.raises(LoaderError, match="one-shot"):
        activations(net(), iter(BATCHES))


def test_batches_of_another_shape_are_refused_where_it_matters() -> None:
    model = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), pool=nn.AdaptiveAvgPool2d(1)))
    batches = [torch.randn(4, 1, 8, 8), torch.randn(4, 1, 6, 6)]
    assert activations(model, batches, ["conv"], conv="mean").rows["conv"].shape == (8, 2)
    with pytest.raises(LayerError, match=r"layer conv gave .4, 2, 4, 4. for 4 examples and .4, 2, 6, 6. for the first"):
        activations(model, batches, ["conv"], conv="flatten")


def test_stored_activations_are_reused_only_for_the_same_content(tmp_path, monkeypatch) -> None:
    model, read = net(), []
    monkeypatch.setattr(Reader, "rows", lambda self, batch, rows=Reader.rows: read.append(batch) or rows(self, batch))
    settings = {"layers": ["fc*"], "cache": tmp_path}
    first = activations(model, BATCHES, **settings)
    seen = {id(batch) for batch in read}
    assert seen == {id(batch) for batch in BATCHES}
    read.clear()
    again = activations(model, BATCHES, **settings)
    assert {id(batch) for batch in read} == {id(BATCHES[0])}  # what it gives is part of the name
    assert again.layers == first.layers
    assert (again.handling, again.n, again.data) == (first.handling, 12, first.data)
    assert all(torch.equal(again.rows[name], first.rows[name]) for name in first.rows)
    assert list(again.rows) == ["fc1", "fc2"]
    with torch.no_grad():
        model.fc2.bias += 1
    changed = activations(model, BATCHES, **settings)
    torch.testing.assert_close(changed.rows["fc2"], first.rows["fc2"] + 1)
    assert activations(model, BATCHES[::-1], **settings).data != first.data
    assert len(list(tmp_path.iterdir())) == 3


def test_a_shuffled_loader_can_be_stored_and_augmentation_cannot(tmp_path) -> None:
    loader = DataLoader(TensorDataset(X), 5, shuffle=True)
    found = activations(net(), loader, ["fc2"], cache=tmp_path)
    plain = activations(net(), [X], ["fc2"])
    assert torch.equal(found.rows["fc2"].sum(1).sort().values, plain.rows["fc2"].sum(1).sort().values)
    noise = torch.Generator().manual_seed(0)
    augmented = DataLoader(TensorDataset(X), 5, collate_fn=lambda rows: rows[0][0] + torch.rand(3, 6, generator=noise))
    with pytest.raises(LoaderError, match="other batches in its second pass"):
        activations(net(), augmented, ["fc2"], cache=tmp_path)


def test_save_and_load(tmp_path) -> None:
    found = activations(small_net(), digit_batches(), ["conv2", "head"], conv="spectral")
    found.save(tmp_path / "a.safetensors")
    again = Activations.load(tmp_path / "a.safetensors")
    assert again.layers == found.layers
    assert again.rows["conv2"].shape == (96, 8, 4, 4)
    assert torch.equal(again.rows["head"], found.rows["head"])
    files.write_tensors(tmp_path / "other.safetensors", {"head": found.rows["head"]}, {"n": 1})
    with pytest.raises(StoreError, match="holds no activations"):
        Activations.load(tmp_path / "other.safetensors")
    for wrong in ("head", []):
        with pytest.raises(LayerError, match="layers are a list of names or patterns"):
            activations(small_net(), digit_batches(), wrong)
