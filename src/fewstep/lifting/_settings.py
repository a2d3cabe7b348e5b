"""Settings of the training of corrections."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._ranges import COUNT, NATURAL, NOT_NEGATIVE, POSITIVE, check_fields

__all__ = ["Training"]

#: Most passes through the pairs, and steps. On the digits 256 to 1,024 pairs overfit before, at 3 to 6 calls,
#: and 4,096 gain throughout.
_PASSES, _MOST = 150, 3000


@dataclass(frozen=True)
class Training:
    """How corrections are trained: AdamW with a cosine decay, and an average of the weights.

    Args:
        iterations: most steps; by default 150 passes through the pairs, and at most 3,000.
        batch: pairs in a step.
        lr: highest learning rate.
        weight_decay: weight decay (Loshchilov and Hutter, 2019), the more the fewer pairs there are.
        average: weight of the past in the exponential average of the weights, which is what is kept.
        validate_every: steps between validations.
        patience: validations without an improvement that end the training.
        width: channels of the networks.
        blocks: residual blocks of the network at the last state, half as many before.
        kernel: size of its convolutions, odd.
        patch: entries along each axis that they take together; by default 1 for samples of up to 16 along
            each axis, 2 for larger ones, and 4 beyond 128.

    Raises:
        ValueError: on an invalid setting.
    """

    iterations: int | None = None
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.1
    average: float = 0.97
    validate_every: int = 50
    patience: int = 6
    width: int = 32
    blocks: int = 2
    kernel: int = 5
    patch: int | None = None

    def __post_init__(self) -> None:
        check_fields("Training", self, iterations=COUNT, batch=COUNT, validate_every=COUNT, patience=COUNT)
        check_fields("Training", self, width=COUNT, blocks=NATURAL, kernel=COUNT, patch=COUNT)
        check_fields("Training", self, lr=POSITIVE, weight_decay=NOT_NEGATIVE)
        if self.kernel % 2 == 0:
            raise ValueError(f"Training: kernel must be odd, not {self.kernel}.")
        if not 0 <= self.average < 1:
            raise ValueError(f"Training: average must be at least 0 and below 1, not {self.average!r}.")

    def steps(self, count: int) -> int:
        """Return the most steps with ``count`` training pairs."""
        return self.iterations or min(_MOST, math.ceil(_PASSES * count / min(self.batch, count)))
