"""Why does this training heuristic work on my model: curves, surfaces and controlled studies for PyTorch.

The public API is this page; ``import closerlook as cl``.
"""

from closerlook.activations import Activations, activations, layers
from closerlook.agreement import Agreement, Ensemble, agreement, ensemble
from closerlook.alignment import AlignedBarriers, Alignment, align, aligned_barriers, alignment, repair
from closerlook.batches import Output
from closerlook.curvature import (
    CriticalLR,
    NoiseScale,
    Sharpness,
    SharpnessTrace,
    Trace,
    critical_lr,
    hessian_trace,
    noise_scale,
    sharpness,
    stability_threshold,
)
from closerlook.errors import CloserlookError
from closerlook.evaluation import Evaluation, evaluate, with_statistics
from closerlook.evidence import Rule, Verdict, verdict
from closerlook.landscape import (
    Barrier,
    BarrierMatrix,
    Directions,
    Profile,
    Subspace,
    Surface,
    Trajectory,
    barrier,
    barrier_matrix,
    bezier,
    connect,
    hessian_directions,
    line,
    load_curve,
    plane,
    polychain,
    profile,
    random_directions,
    read_curve_npz,
    refine_chain,
    simplex,
    surface,
    trajectory,
)
from closerlook.probes import Probe, Probes, probes
from closerlook.schedules import Constant as constant
from closerlook.schedules import Cosine as cosine
from closerlook.schedules import LinearDecay as linear_decay
from closerlook.schedules import Restarts as restarts
from closerlook.schedules import StepDecay as step_decay
from closerlook.schedules import Warmup as warmup
from closerlook.similarity import (
    Comparison,
    GridMoments,
    Moments,
    Similarity,
    SpectralMoments,
    cca,
    cka,
    compare,
    procrustes,
    pwcca,
    spectral_cca,
    svcca,
)
from closerlook.training import LayerTrace, TrainResult, train
from closerlook.training.interventions import Clip as clip
from closerlook.training.interventions import Distil as distil
from closerlook.training.interventions import Freeze as freeze
from closerlook.training.interventions import GroupRate as group_rate
from closerlook.training.interventions import LabelSmoothing as label_smoothing
from closerlook.training.interventions import MatchFeatures as match_features
from closerlook.training.interventions import RandomRate as random_rate
from closerlook.training.interventions import teacher_logits
from closerlook.watching import SeedsReport, WatchReport, across_seeds, watch
from closerlook.weights import Point, WeightSpace, loaded

__version__ = "0.1.0"

__all__ = [
    "Activations", "Agreement", "AlignedBarriers", "Alignment", "Barrier", "BarrierMatrix", "CloserlookError",
    "Comparison", "CriticalLR", "Directions", "Ensemble", "Evaluation", "GridMoments", "LayerTrace", "Moments",
    "NoiseScale", "Output", "Point", "Probe", "Probes", "Profile", "Rule", "SeedsReport", "Sharpness",
    "SharpnessTrace", "Similarity", "SpectralMoments", "Subspace", "Surface", "Trace", "TrainResult", "Trajectory",
    "Verdict", "WatchReport", "WeightSpace", "across_seeds", "activations", "agreement", "align",
    "aligned_barriers", "alignment", "barrier", "barrier_matrix", "bezier", "cca", "cka", "clip", "compare",
    "connect", "constant", "cosine", "critical_lr", "distil", "ensemble", "evaluate", "freeze", "group_rate",
    "hessian_directions", "hessian_trace", "label_smoothing", "layers", "line", "linear_decay", "load_curve",
    "loaded", "match_features", "noise_scale", "plane", "polychain", "probes", "procrustes", "profile", "pwcca",
    "random_directions", "random_rate", "read_curve_npz", "refine_chain", "repair", "restarts", "sharpness",
    "simplex", "spectral_cca", "stability_threshold", "step_decay", "surface", "svcca", "teacher_logits", "train",
    "trajectory", "verdict", "warmup", "watch", "with_statistics",
]  # fmt: skip
