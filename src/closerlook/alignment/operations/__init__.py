"""How each operation of PyTorch carries the units of its inputs to its outputs, and which axes it ties together.

Every rule is sound: it ties, splits or fixes axes until the operation commutes with whatever may still be permuted. An
operation without a rule is refused where it meets units that move.
"""

from closerlook.alignment.operations import layers, views
from closerlook.alignment.operations.call import RULES, Call, Rule
from closerlook.alignment.operations.entries import pointwise
from closerlook.alignment.operations.products import SUMS

__all__ = ["RULES", "SUMS", "Call", "Rule", "layers", "pointwise", "views"]
