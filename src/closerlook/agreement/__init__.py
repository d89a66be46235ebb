"""Function-space distance of models: where they disagree, how far their predictions are, what an ensemble gains."""

from closerlook.agreement.ensembles import Ensemble, ensemble, ensemble_logits
from closerlook.agreement.intervals import Estimate, wilson
from closerlook.agreement.models import agreement
from closerlook.agreement.result import Agreement
from closerlook.agreement.table import compare_logits

__all__ = [
    "Agreement", "Ensemble", "Estimate", "agreement", "compare_logits", "ensemble", "ensemble_logits", "wilson",
]  # fmt: skip
