"""What a diagnosis fixes: network, data, optimizer, and which trainings are compared."""

from closerlook.runs.recipe import DataSpec, Frozen, ModelSpec, OptimizerSpec, TrainRecipe, Watch
from closerlook.runs.recipe import Seeds as SeedsOf

MARGIN = 0.05  # of validation accuracy: what counts as better
SLOW = 0.25  # of the learning rate: the other remedy
READINGS = 12  # of sharpness, twice as long as the longest warmup


class Settings(Frozen):
    """A diagnosis of one network at one constant learning rate.

    `lengths` are those of warmup in steps, the longest last: the blocks are warmed up and frozen alone for that long.
    `read` images of the training part carry the sharpness.
    """

    data: DataSpec
    model: ModelSpec
    optimizer: OptimizerSpec
    batch_size: int
    epochs: int
    lengths: tuple[int, ...]
    blocks: dict[str, tuple[str, ...]]
    clip: float
    seeds: tuple[int, ...]

    @property
    def ramp(self) -> int:
        """Steps of the longest warmup."""
        return self.lengths[-1]

    @property
    def steps(self) -> int:
        """Steps of every training."""
        return self.plain(0).clock.total_steps

    @property
    def traced(self) -> Watch:
        """What is observed in the trainings without and with the longest warmup."""
        every = max(1, 2 * self.ramp // READINGS)
        until = f"{2 * self.ramp}it"
        return Watch(
            layers_every=every, sharpness_every=every, sharpness_until=until, examples=self.data.n_read,
            blocks=dict(self.blocks),
        )  # fmt: skip

    def plain(self, seed: int) -> TrainRecipe:
        """Training at the constant rate, with nothing changed."""
        return TrainRecipe(
            data=self.data,
            model=self.model,
            optimizer=self.optimizer,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seeds=SeedsOf.of(seed),
        )
