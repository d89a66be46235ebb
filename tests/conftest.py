"""What the tests share: a small network with batch norm, digits in memory, and settings that keep runs repeatable."""

from collections import OrderedDict

import hypothesis
import threadpoolctl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

torch.set_num_threads(1)
threadpoolctl.threadpool_limits(1)  # numpy's too: the tests run side by side
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")

Batch = tuple[Tensor, Tensor]


def small_net(seed: int = 0) -> nn.Sequential:
    """Two convolutions with batch norm and a linear head, for digits [n, 1, 8, 8]; 852 weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = OrderedDict(
            conv1=nn.Conv2d(1, 6, 3, padding=1, bias=False), norm1=nn.BatchNorm2d(6), relu1=nn.ReLU(),
            conv2=nn.Conv2d(6, 8, 3, stride=2, padding=1), norm2=nn.BatchNorm2d(8), relu2=nn.ReLU(),
            pool=nn.AvgPool2d(2), flatten=nn.Flatten(), head=nn.Linear(32, 10),
        )  # fmt: skip
        # Norm layers that differ from network to network: a curve must move them as well.
        for norm in (layers["norm1"], layers["norm2"]):
            nn.init.normal_(norm.weight, 1.0, 0.2)
            nn.init.normal_(norm.bias, 0.0, 0.2)
            norm.running_mean.normal_(0.0, 0.5)
            norm.running_var.uniform_(0.5, 1.5)
        return nn.Sequential(layers)


def digit_batches(
    n: int = 96, batch_size: int = 32, *, start: int = 0, dtype: torch.dtype = torch.float32
) -> list[Batch]:
    """Digits `start` to `start + n`, about normalised, as a list of batches; the last may be smaller."""
    values, labels = load_digits(return_X_y=True)
    images = ((torch.from_numpy(values[start : start + n]) - 4.9) / 6.0).to(dtype).reshape(-1, 1, 8, 8)
    targets = torch.from_numpy(labels[start : start + n]).long()
    return list(zip(images.split(batch_size), targets.split(batch_size), strict=True))
