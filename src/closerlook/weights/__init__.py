"""A model's parameters as one flat vector: points of weight space, and the names that make them fit.

The order of the vector is that of ``named_parameters`` (tied parameters once, frozen ones included), each
parameter in its logical layout, whatever its memory format.
"""

from closerlook.weights.loaded import loaded
from closerlook.weights.names import Named, fitted, named, named_modules
from closerlook.weights.products import distance, gram
from closerlook.weights.space import Point, WeightSpace

__all__ = ["Named", "Point", "WeightSpace", "distance", "fitted", "gram", "loaded", "named", "named_modules"]
