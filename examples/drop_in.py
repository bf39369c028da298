"""Give the layers of an existing model the fast forward: `python examples/drop_in.py`."""

import torch
from torch import Tensor, nn

import hstl_fast


class Convolution(nn.Module):
    """A convolution as models for gait recognition write it."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(c_in, c_out, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x` `[n, c_in, t, h, w]`."""
        return self.conv3d(x)


class Network(nn.Module):
    """A model of your own: a stage that `accelerate` recognises, and a head that it leaves alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Sequential(Convolution(1, 32), nn.LeakyReLU(), Convolution(32, 32), nn.LeakyReLU())
        self.head = nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        """Turn silhouettes `[n, 1, t, h, w]` into vectors `[n, 16]`."""
        return self.head(self.stage(x).mean((2, 3, 4)))


def main() -> None:
    """Accelerate the network, compare its results, train a step, and restore it."""
    network = Network()
    silhouettes = (torch.rand(2, 1, 10, 64, 44) > 0.5).float()
    before = network(silhouettes)

    report = hstl_fast.accelerate(network)  # in place: parameters and state_dict stay as they are
    print(report)
    after = network(silhouettes)
    print(f"largest difference: {(after - before).abs().max() / before.abs().max():.1e} of the largest value")

    optimizer = torch.optim.SGD(network.parameters(), 0.1)  # training goes on as before
    after.square().sum().backward()
    optimizer.step()

    report.undo()


if __name__ == "__main__":
    main()
