"""The networks of the paper, small ones for tests, and the user's own by ``package.module:function``."""

from closerlook.models.mlp import mlp
from closerlook.models.registry import MODELS, build, describe
from closerlook.models.target import is_target, load_target
from closerlook.models.vgg import VGG, vgg

__all__ = ["MODELS", "VGG", "build", "describe", "is_target", "load_target", "mlp", "vgg"]
