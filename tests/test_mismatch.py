"""A checkpoint that does not fit says what differs, layer by layer, in a screenful, with the likely cause."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from closerlook.errors import MismatchError
from closerlook.weights import WeightSpace
from closerlook.weights.differences import closest
from conftest import small_net

State = dict[str, Tensor]


def message(model: nn.Module, state: State, params: str = "*") -> str:
    with pytest.raises(MismatchError) as error:
        WeightSpace(model, params).point(state)
    return str(error.value)


def cause(model: nn.Module, state: State) -> str:
    return message(model, state).splitlines()[-1]


def test_every_difference_stands_in_the_line_of_its_layer() -> None:
    state = small_net().state_dict()
    del state["conv2.bias"]
    state["tail.weight"] = torch.zeros(1)
    state["head.weight"] = torch.zeros(3, 32)
    state["head.bias"] = torch.zeros(3)
    state["norm1.running_mean"] = torch.zeros(7)
    assert message(small_net(), state).splitlines() == [
        "the state dict does not fit the model: 1 missing, 1 not in the model, 3 of another shape",
        "  conv2.bias (8,) is missing",
        "  head.weight: (3, 32) here, (10, 32) in the model; head.bias: (3,) here, (10,) in the model",
        "  norm1.running_mean: (7,) here, (6,) in the model",
        "  tail.weight (1,) is not in the model",
        "Likely cause: another width or size of input: 3 of 14 tensors of the same names have other shapes; build the "
        "model with the options that these weights were trained with",
    ]


def chain(names: list[str], width: int = 4) -> nn.Sequential:
    return nn.Sequential(OrderedDict({name: nn.Linear(width, width) for name in names}))


def test_a_message_is_at_most_a_screenful() -> None:
    model, other = chain([f"layer{number}" for number in range(300)]), chain([f"{number}" for number in range(300)], 3)
    lines = message(model, other.state_dict()).splitlines()
    assert len(lines) <= 24
    assert lines[-2] == "  and 584 more layers"
    wide = nn.ParameterDict({f"p{number}": torch.zeros(1) for number in range(40)})
    assert message(wide, {}).splitlines()[1].endswith("p11 (1,) is missing; and 36 more")


def test_renamed_layers_are_recognised_by_their_order() -> None:
    model, other = chain(["stem", "middle", "head"]), chain(["0", "1", "2"])
    text = message(model, other.state_dict())
    assert "1.weight (4, 4) is not in the model, did you mean middle.weight?" in text
    assert "2.bias (4,) is not in the model, did you mean head.bias?" in text


def test_names_of_one_shape_are_matched_by_spelling_where_the_numbers_differ() -> None:
    extra = {"features.0.weight": (3, 3)}
    missing = {"features.conv1.weight": (3, 3), "head.weight": (3, 3), "features.other.bias": (3,)}
    assert closest(extra, missing) == {"features.0.weight": "features.conv1.weight"}
    assert closest({"features.0.weight": (4, 3)}, missing) == {}


def with_prefix(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()


def without_norms() -> nn.Sequential:
    layers = [(name, layer) for name, layer in small_net().named_children() if "norm" not in name]
    return nn.Sequential(OrderedDict(layers))


def another_head(classes: int) -> State:
    net = small_net()
    net.head = nn.Linear(32, classes)
    return net.state_dict()


def stateless() -> nn.Sequential:
    net = small_net()
    net.norm1, net.norm2 = (nn.BatchNorm2d(width, track_running_stats=False) for width in (6, 8))
    return net


def normed() -> nn.Sequential:
    net = small_net()
    net.head = weight_norm(net.head)
    return net


BACKBONE = {name: value for name, value in small_net().state_dict().items() if "head" not in name}
CAUSES = {
    "a prefix of the checkpoint": (
        small_net(), {**with_prefix(small_net().state_dict(), "model.net."), "loss.weight": torch.zeros(10)},
        "the checkpoint's names begin with 'model.net.' and the model's do not; pass {name.removeprefix('model.net.')",
    ),
    "a prefix of the model": (
        Held(), small_net().state_dict(),
        "the model's names begin with 'net.' and the checkpoint's do not; pass model.net",
    ),
    "a layer called module": (
        nn.ModuleDict({"module": nn.Linear(2, 2)}), nn.Linear(2, 2).state_dict(), "names begin with 'module.'",
    ),
    "other classes": (
        small_net(), another_head(7), "a classifier of 7 classes where the model has 10; build the model with 7"
    ),
    "another width": (chain(list("abc")), chain(list("abc"), 5).state_dict(), "another width or size of input: 6 of 6"),
    "another architecture": (small_net(), chain(list("abc")).state_dict(), "another architecture (0 names in common)"),
    "weight norm in the checkpoint": (small_net(), normed().state_dict(), "the checkpoint has parametrized weights"),
    "weight norm in the model": (normed(), small_net().state_dict(), "the model has parametrized weights"),
    "no batch norm": (small_net(), without_norms().state_dict(), "of a network without batch norm (folded"),
    "batch norm in the checkpoint": (
        without_norms(), small_net().state_dict(), "of a network with batch norm, and the model has none there; build"
    ),
    "statistics that the model has not": (stateless(), small_net().state_dict(), "with track_running_stats=True"),
    "a part": (small_net(), BACKBONE, "the checkpoint holds a part of the network (a backbone, an adapter)"),
    "the whole of a part": (small_net()[:-1], small_net().state_dict(), "a part of the checkpoint's network"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CAUSES)
def test_the_likely_cause_is_named(kind: str) -> None:
    model, state, expected = CAUSES[kind]
    assert cause(model, state).startswith("Likely cause: ")
    assert expected in cause(model, state)


def test_a_part_of_a_checkpoint_is_enough_for_a_restricted_space() -> None:
    head = {name: value for name, value in small_net().state_dict().items() if "head" in name}
    assert WeightSpace(small_net(), "head.*").point(head).vector.shape == (330,)
    assert "conv1.weight: (6, 2, 3, 3) here" in message(
        small_net(), {**head, "conv1.weight": torch.zeros(6, 2, 3, 3)}, "head.*"
    )


def test_weights_without_numbers_are_refused() -> None:
    with torch.device("meta"):
        empty = nn.Linear(2, 2)
    with pytest.raises(MismatchError, match="weight lies on the meta device and has no numbers"):
        WeightSpace(nn.Linear(2, 2)).point(empty)
