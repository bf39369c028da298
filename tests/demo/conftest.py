"""One run of the demo with a narrow network and three walkers."""

from collections.abc import Iterator

import pytest

from hstl_fast.cli import demo
from hstl_fast.demo import runs
from hstl_fast.network import Network
from tests.cli.helpers import run
from tests.demo.helpers import FRAMES, Run, one_thread
from tests.helpers.networks import narrow_model


@pytest.fixture(scope="module", autouse=True)
def small_networks_in_one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def network() -> Network:
    return Network(narrow_model("casia-b", divisor=32), "casia-b", "seed:0")


@pytest.fixture(scope="session")
def demo_run(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of the command with a narrow network and three walkers."""
    output = tmp_path_factory.mktemp("demo") / "report.html"
    found = []

    def keep(*arguments: object) -> runs.Findings:
        found.append(runs.find_out(*arguments))
        return found[0]

    with one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "load_network", lambda settings: network)
        patch.setattr(demo, "find_out", keep)
        result = run("demo", "--identities", 3, "--max-frames", FRAMES, "-o", output)
    return Run(result, output, output.read_text(encoding="utf-8"), found[0])
