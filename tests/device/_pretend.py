"""A pretended accelerator: tensors on ``cuda`` that are held and computed by the CPU.

:class:`OnDevice` holds a CPU tensor, and :class:`Pretended` runs all operations on what it holds. It fails
where CUDA fails, so that code may be tested for a GPU on a machine without one: operations of tensors on two
devices, NumPy, and generators of another device. It also records the places where the host would wait for
the device. To the C++ of PyTorch these tensors are on ``meta:0``, which needs no driver.

Streams, CUDA graphs, memory statistics, autocast and ``torch.compile`` are not pretended.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from _cuda_rules import META, check_devices, is_cuda, waits
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

__all__ = ["CUDA", "OnDevice", "Pretended", "PretendedGenerator", "Wait", "pinned"]

aten = torch.ops.aten
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


class Wait(NamedTuple):
    """A place where the host waits for the device: the operation, and the innermost calls."""

    operation: str
    stack: tuple[str, ...]


class OnDevice(Tensor):
    """A tensor on the pretended device."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    held: Tensor

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        place = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        self = Tensor._make_wrapper_subclass(cls, held.shape, **place, device=META)
        self.held = held
        return self

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def item(self) -> Any:
        return aten._local_scalar_dense(self) if self.numel() == 1 else super().item()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first."
        )

    __array__ = numpy

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or CUDA)

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(torch.tensor(index) if isinstance(index, list) else index)

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(torch.tensor(index) if isinstance(index, list) else index, value)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.ndim == 0 else object.__format__(self, spec)

    def __repr__(self) -> str:
        return f"OnDevice({self.held})"


for _name, _kind in {"__float__": float, "__int__": int, "__bool__": bool, "__index__": int}.items():
    setattr(OnDevice, _name, lambda self, kind=_kind: kind(self.item()))


class PretendedGenerator(torch.Generator):
    """A generator of either device, which draws on the CPU."""

    def __new__(cls, device: torch.device | str = "cpu") -> PretendedGenerator:
        self = super().__new__(cls, "cpu")
        self.place = CUDA if is_cuda(torch.device(device)) else CPU
        return self

    @property
    def device(self) -> torch.device:
        return self.place


class Pretended:
    """The device: where it is entered, tensors can be made on ``cuda`` and moved there.

    Attributes:
        waits: the places where the host waited for the device.
        strict: raise at a wait, as in CUDA's debug mode for them.
    """

    now: Pretended

    def __init__(self) -> None:
        self.waits: list[Wait] = []
        self.strict = False

    @contextmanager
    def entered(self) -> Iterator[Pretended]:
        """Use the device in this thread."""
        Pretended.now = self
        with _Calls(), _Operations():
            yield self

    @contextmanager
    def left(self) -> Iterator[None]:
        """Leave the device for a while, as the CPU computes faster without it."""
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            yield

    def through(self, function: Any) -> Any:
        """Return a function that enters calls again, which PyTorch leaves on the way to its engine."""

        def entering(*args: Any, **kwargs: Any) -> Any:
            with _Calls():
                return function(*args, **kwargs)

        return entering

    def wait(self, operation: str) -> None:
        """Record that the host waits here."""
        self.waits.append(Wait(operation, tuple(_frames(4))))
        if self.strict:
            raise RuntimeError(
                f"called a synchronizing CUDA operation: {operation} at {self.waits[-1].stack}"
            )


class _Operations(TorchDispatchMode):
    """Runs the operations that make tensors."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # which takes longer than a small operation
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """Makes tensors of numbers, and refuses generators of another device, whose class C++ forgets."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        generator = kwargs.get("generator") if kwargs else None
        if generator is not None:
            first = next(_tensors(args), None)
            given = kwargs.get("device")
            place = torch.device(given) if given is not None else CPU if first is None else first.device
            if place.type != generator.device.type:
                raise RuntimeError(
                    f"Expected a '{place.type}' device type for generator but found '{generator.device.type}'"
                )
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and is_cuda(kwargs.get("device")):
            return func(*args, **{**kwargs, "device": None}).to(META)
        if kwargs:
            kwargs = {name: _seen(value) for name, value in kwargs.items()}
        return func(*map(_seen, args), **kwargs)


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU; wrap results that are on the device."""
    name, target = func._schema.name.removeprefix("aten::"), kwargs.get("device")
    tensors = list(_tensors((*args, *kwargs.values())))
    device = [x for x in tensors if isinstance(x, OnDevice)]
    if not device and (target is None or not is_cuda(target)):
        if not kwargs.get("pin_memory"):
            return func(*args, **kwargs)
        return pinned(func(*args, **kwargs | {"pin_memory": False}))
    if torch.is_inference_mode_enabled() and func._can_decompose():
        return func.decompose(*args, **kwargs)
    check_devices(func, name, args, tensors)
    if waits(name, args, kwargs):
        Pretended.now.wait(name)
    known = {id(x.held): x for x in device}
    held = {key: _hold(value) for key, value in kwargs.items()}
    if target is not None:
        held["device"] = CPU if is_cuda(target) else target
    there = bool(device) if target is None else is_cuda(target)
    if name == "copy_" or (name.startswith("index_put") and not isinstance(args[0], OnDevice)):
        there = isinstance(args[0], OnDevice)
    if name == "_efficientzerotensor":  # of forward-mode derivatives; it has no memory
        func = aten.zeros.default
    result = func(*map(_hold, args), **held)
    if any(x.shape != x.held.shape for x in device):
        with no_dispatch():  # squeeze_ and its like: change the shape in place that C++ sees, too
            func(*args, **kwargs)

    def wrapped(x: Any) -> Any:
        if not isinstance(x, Tensor) or not there:
            return x
        return known[id(x)] if id(x) in known else OnDevice(x)

    return type(result)(map(wrapped, result)) if isinstance(result, list | tuple) else wrapped(result)


def pinned(x: Tensor, device: Any = None) -> Tensor:
    """Return a copy in memory that is copied to the device without a wait."""
    x = x.clone()
    x.pinned = True
    return x


def _seen(x: Any) -> Any:
    """Return a device as the C++ of PyTorch knows it."""
    if not isinstance(x, torch.device | str):
        return x
    if is_cuda(x) and (torch.device(x).index or 0) > 0:
        raise RuntimeError("CUDA error: invalid device ordinal")
    return META if is_cuda(x) else x


def _hold(x: Any) -> Any:
    if isinstance(x, list | tuple):
        return [_hold(part) for part in x]
    return x.held if isinstance(x, OnDevice) else x


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among values and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _frames(count: int) -> Iterator[str]:
    """Yield the innermost calls outside PyTorch and this file."""
    frame = sys._getframe(2)
    while frame is not None and count:
        name = frame.f_code.co_filename
        if name != __file__ and "/torch/" not in name:
            yield f"{name.rsplit('/', 1)[-1]}:{frame.f_lineno} {frame.f_code.co_name}"
            count -= 1
        frame = frame.f_back
