"""The typed errors: each message names the cause and the repair."""


class CloserlookError(Exception):
    """Base of every error that closerlook raises on purpose."""


class UsageError(CloserlookError, ValueError):
    """What was passed in cannot be used; the command line exits with 2."""


class MismatchError(UsageError):
    """Two things that should fit (weights and model, two checkpoints) do not."""


class CheckpointError(UsageError):
    """A file is no checkpoint, is damaged, or cannot be read without running code."""


class LoaderError(UsageError):
    """A loader breaks the batch contract (one-shot, empty, wrong shape)."""


class LayerError(UsageError):
    """A pattern matches no layer, or a layer's output cannot be compared."""


class TooFewExamplesError(UsageError):
    """A similarity needs more examples than there are for so many directions."""


class ConditionError(UsageError):
    """A covariance is too ill-conditioned for what is to be read from it."""


class NotFiniteError(UsageError):
    """A loss, an activation, a gradient or a curvature is NaN or infinite: nothing can be read at these weights."""


class DataMissingError(UsageError):
    """A data set is on none of the places that were searched."""


class PointMissingError(UsageError):
    """A run that diverged left no weights there; what depends on them is missing, which is a result too."""


class StoreError(CloserlookError):
    """A run folder is unreadable, truncated, locked or of another recipe."""


class StateError(StoreError):
    """A training cannot go on from its stored state; without the state it starts from its beginning."""


class DiskFullError(StoreError):
    """There is no room for what has to be written; what was finished is kept."""


class StepFailedError(CloserlookError):
    """A step of a study raised; the steps that do not need it were finished."""
