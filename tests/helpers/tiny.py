"""A network of the fewest channels, for tests that need any HSTL."""

import torch
from torch import Tensor

from hstl_fast import HSTL, HSTLConfig
from hstl_fast.models import Stage

TINY = HSTLConfig((4,), (Stage((40, 24), (4,)), Stage((20, 20, 24), (4,))), pool=False, strips=4, num_classes=3)


def tiny_model(seed: int = 0) -> HSTL:
    """An untrained network of `TINY` whose batch norm has seen something."""
    torch.manual_seed(seed)
    model = HSTL(TINY)
    torch.nn.init.normal_(model.norm.running_mean, std=0.05)
    return model


def differing(a: torch.nn.Module, b: torch.nn.Module) -> list[str]:
    """The names of the tensors that differ in any bit."""
    others = b.state_dict()
    return [name for name, value in a.state_dict().items() if not torch.equal(value, others[name])]


def silhouettes(n: int = 2) -> Tensor:
    """`[n, 3, 64, 44]`, random, float32."""
    return torch.rand(n, 3, 64, 44)
