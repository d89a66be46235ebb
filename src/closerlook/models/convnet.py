"""What the convolutional networks share: features, then a head."""

import torch
from torch import Tensor, nn

from closerlook.errors import UsageError


class ConvNet(nn.Module):
    """Convolutions `features`, flattened, then the fully connected `head`: images [n, c, h, w] to logits [n, classes].

    Layers have names that say what they are, such as ``features.conv1`` and ``head.fc1``. `image_size` is the only
    side of square images that the head fits; None where the features end in a mean over the map and any size does.
    """

    def __init__(self, features: nn.Sequential, head: nn.Sequential, image_size: int | None = None):
        super().__init__()
        self.features = features
        self.head = head
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, c, h, w]."""
        if self.image_size is not None and set(images.shape[-2:]) != {self.image_size}:
            raise UsageError(
                f"this {type(self).__name__} was built for {self.image_size}x{self.image_size} images and got "
                f"{tuple(images.shape)}; build it with image_size= the size of your images"
            )
        return self.head(torch.flatten(self.features(images), 1))


def scaled(units: int, width: float) -> int:
    """`units` times `width`, rounded, at least 1."""
    return max(1, round(units * width))


def check_positive(**sizes: float) -> None:
    """Refuse a width, size or number of channels or classes that leaves no unit."""
    if sizes.get("width", 1) <= 0 or any(size < 1 for name, size in sizes.items() if name != "width"):
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UsageError(f"{told} must be positive")
