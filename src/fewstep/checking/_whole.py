"""Networks that take whole numbers as time, such as those that look it up in an embedding table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

__all__ = ["Whole", "table_sizes", "wants_whole"]

#: PyTorch's errors for indices that are not whole numbers.
_NOT_WHOLE = re.compile(
    r"scalar types?: (Long|Int)|must be (of type )?(long|int)|indices.*(Long|integer)"
    r"|expected .* (Long|int64)|only applicable to (integral|index) tensor|only integer tensors"
    r"|dtype .*int64 for index",
    re.IGNORECASE,
)
#: Least size of a table of timesteps: smaller ones are of labels.
_FEWEST = 16


@dataclass(frozen=True)
class Whole:
    """The clock of whole numbers from ``start`` in noise to ``end`` in data, one of which is 0."""

    start: int
    end: int

    def __call__(self, t: Tensor) -> Tensor:
        return (self.start * (1 - t) if self.end == 0 else self.end * t).round().long()

    def __repr__(self) -> str:
        scaled = f"{self.start} * (1 - t)" if self.end == 0 else f"{self.end} * t"
        return f"lambda t: ({scaled}).round().long()"


def wants_whole(error: Exception | None) -> bool:
    """True for the error of a network that was passed a time that is not a whole number."""
    return error is not None and bool(_NOT_WHOLE.search(str(error)))


def table_sizes(model: Callable[..., Any]) -> list[int]:
    """Return the sizes of the embedding tables that may be of timesteps, the largest first."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    sizes = {module.num_embeddings for module in modules if isinstance(module, nn.Embedding)}
    return sorted((size for size in sizes if size >= _FEWEST), reverse=True)
