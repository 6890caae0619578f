"""Building architectures without paying for random numbers that loaded weights would overwrite at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tlsearch.model.libraries.libraries import create_original

_ALLOCATIONS = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})
_INITS: Mapping[Any, Callable[[Mapping[str, Any]], float]] = {  # the means, of the names by which torch passes them on
    nn.init.normal_: lambda options: options["mean"],
    nn.init.uniform_: lambda options: (options["a"] + options["b"]) / 2,
    nn.init.kaiming_uniform_: lambda options: 0.0,
}


class ConstantFill(TorchFunctionMode):
    """Fills with the mean of the distribution where an initialisation asks for random numbers.

    A constant is used instead of leaving memory as it is: the rejection loop of ``trunc_normal_`` would not end on
    arbitrary bytes, and whatever is not loaded afterwards is at least defined.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func in _INITS:  # these draw while no mode hears of it, on meta by way of torch's compiler
            with torch.no_grad():
                return options["tensor"].fill_(_INITS[func](options))
        if func is Tensor.normal_:
            return args[0].fill_(args[1] if len(args) > 1 else options.get("mean", 0.0))
        if func is Tensor.uniform_:
            low = args[1] if len(args) > 1 else options.get("from", 0.0)
            high = args[2] if len(args) > 2 else options.get("to", 1.0)
            return args[0].fill_((low + high) / 2)
        return func(*args, **options)


class MetaAllocation(ConstantFill):
    """Allocates parameters on the meta device, but computes small index tensors for real.

    ``torch.device("meta")`` moves everything, and the RegNets then fail: they read their widths from tensors that
    they compute with ``arange``. Only allocations are moved here.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func in _ALLOCATIONS and options.get("device") is None:
            options["device"] = "meta"
        return super().__torch_function__(func, types, args, options)


@contextmanager
def forked_seed(seed: int) -> Iterator[None]:
    """Runs a block with the CPU's generator seeded, and puts the generator back where it was."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reseed every CUDA device, which fork_rng does not restore here.
        torch.default_generator.manual_seed(seed)
        yield


def empty_original(base: str, version: str | None, image_size: int) -> nn.Module:
    """The library's model in memory with constants where random numbers would be; draws none."""
    with forked_seed(0), ConstantFill():
        return create_original(base, version, image_size, random_init=False)


def random_original(base: str, version: str | None, image_size: int, seed: int) -> nn.Module:
    """The library's model with its own random initialisation, a function of ``seed`` alone."""
    with forked_seed(seed):
        return create_original(base, version, image_size, random_init=True)


def meta_original(base: str, version: str | None, image_size: int) -> nn.Module:
    """The library's model on the meta device: names, shapes and counts without memory."""
    with forked_seed(0), MetaAllocation():
        return create_original(base, version, image_size, random_init=False)
