"""The networks of the paper, small ones for tests, and the user's own by ``package.module:function``."""

from closerlook.models.convnet import ConvNet
from closerlook.models.mlp import mlp
from closerlook.models.registry import MODELS, build, describe
from closerlook.models.resnet import ResNet, preresnet110, resnet, resnet18
from closerlook.models.shallow import ShallowCNN, shallow_cnn
from closerlook.models.target import is_target, load_target
from closerlook.models.vgg import VGG, vgg

__all__ = [
    "MODELS",
    "VGG",
    "ConvNet",
    "ResNet",
    "ShallowCNN",
    "build",
    "describe",
    "is_target",
    "load_target",
    "mlp",
    "preresnet110",
    "resnet",
    "resnet18",
    "shallow_cnn",
    "vgg",
]
