"""The device of these tests: the CPU in tiny sizes, or with `--device cuda` a GPU in the published ones."""

from collections.abc import Iterator

import pytest
import torch

from tests.conftest import chosen_device


@pytest.fixture
def tiny(device: torch.device) -> bool:
    """True where networks are small and steps few."""
    return device.type == "cpu"


@pytest.fixture(autouse=True)
def few_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """On a CPU, where sizes are tiny, one thread is the fastest."""
    before = torch.get_num_threads()
    if chosen_device(request.config).type == "cpu":
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
