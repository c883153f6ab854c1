"""What makes the goldens the same on every machine: random numbers without libm, and transformers run in float64.

float32 arithmetic differs in its last bits from CPU to CPU (vector width, order of sums, polynomial of exp and pow), so
fixtures made in float32 would change with every machine that regenerates them.  Here transformers' own code runs with
float64 weights, and its results are rounded to float32 once, at the end: what the machines disagree on lies nine digits
below the last bit that is kept.  The two references differ by some 3e-7 where the tests allow 1e-4; make_goldens.py
measures it and refuses to write when it is too much.
"""

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

_MASK = (1 << 64) - 1


def _mix(z):
    """SplitMix64's finaliser (Steele et al. 2014) on uint64 arrays."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Stream:
    """Random values that depend on (seed, name, index) alone."""

    def __init__(self, seed, name):
        key = 0xCBF29CE484222325 ^ seed
        for byte in name.encode():
            key = ((key ^ byte) * 0x100000001B3) & _MASK  # FNV-1a
        self._key = np.uint64(key)

    def _words(self, count):
        index = np.arange(1, count + 1, dtype=np.uint64)
        with np.errstate(over="ignore"):
            return _mix(_mix(self._key + index * np.uint64(0x9E3779B97F4A7C15)))

    def uniform(self, count, low=0.0, high=1.0):
        return low + (high - low) * ((self._words(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    def normal(self, count):
        """The sum of four 16-bit uniforms, centred, deviation 1: integers only, no logarithm to round differently."""
        words = self._words(count)
        total = sum((words >> np.uint64(16 * i)) & np.uint64(0xFFFF) for i in range(4)).astype(np.int64)
        return (total - 2 * 0xFFFF) / np.sqrt(4 * (2.0**32 - 1) / 12)

    def integers(self, count, bound):
        return (self._words(count) % np.uint64(bound)).astype(np.int64)


class Exact(TorchFunctionMode):
    """Runs transformers' forward pass in float64 where its code asks for float32.

    - RMSNorm and softmax widen to float32: with float64 activations that would narrow them, so they stay as they are.
    - Rotary angles (position times frequency) remain float32 products, since that rounding is part of the model; their
      cosine and sine are taken in float64.
    - float32 powers (the rotary frequencies) are computed in float64 and rounded once.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.to and args[0].dtype in (torch.float64, torch.bfloat16):
            wanted = args[1] if len(args) > 1 else kwargs.get("dtype")
            if wanted is torch.float32:
                return args[0].double()
        if func is torch.nn.functional.softmax and args[0].dtype is torch.float64:
            kwargs["dtype"] = torch.float64
        if func in (torch.Tensor.cos, torch.Tensor.sin) and args[0].dtype is torch.float32:
            return func(args[0].double())
        if func in (torch.pow, torch.Tensor.pow, torch.Tensor.__pow__, torch.Tensor.__rpow__):
            if any(isinstance(a, torch.Tensor) and a.dtype is torch.float32 for a in args):
                wide = [a.double() if isinstance(a, torch.Tensor) else a for a in args]
                return func(*wide, **kwargs).float()
        return func(*args, **kwargs)


def widen(model):
    """Parameters to float64; buffers (the rotary frequencies) keep the float32 values that are part of the model."""
    for parameter in model.parameters():
        parameter.data = parameter.data.double()
    return model


def relative_error(value, reference):
    """Largest difference over the largest magnitude of the reference."""
    return ((value.double() - reference.double()).abs().max() / reference.double().abs().max()).item()
