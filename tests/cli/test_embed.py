"""`hstl-fast embed`: the file it writes, and what becomes of bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hstl_fast import HSTL, PRESETS, __version__, checkpoints
from hstl_fast.evaluation import load_embeddings
from hstl_fast.network import Network
from tests.cli.helpers import run, walker


def test_writes_embeddings_names_lengths_and_metadata(gallery: Path, tmp_path: Path) -> None:
    output = tmp_path / "gallery.npz"
    result = run("embed", gallery, "-o", output)
    assert "trained on rendered walkers alone" in result.stderr
    assert "3 sequences, 24 frames" in result.stdout
    shipped = Network.shipped()
    with np.load(output, allow_pickle=False) as file:
        assert sorted(file) == ["embeddings", "lengths", "metadata", "names"]
        assert file["embeddings"].shape == (3, shipped.model.config.parts, shipped.model.config.channels)
        assert file["embeddings"].dtype == np.float32
        assert list(file["names"]) == ["person-0", "person-1", "person-2"]
        assert list(file["lengths"]) == [9, 1, 14]
        metadata = json.loads(str(file["metadata"]))
    assert metadata == {"preset": "walkers", "weights": shipped.weights, "version": __version__}


def test_preset_and_seed_choose_random_weights(gallery: Path, tmp_path: Path) -> None:
    chosen = {("--seed", 2023): "casia-b", ("--preset", "gait3d"): "gait3d"}
    for number, (option, preset) in enumerate(chosen.items()):
        output = tmp_path / f"{number}.npz"
        result = run("embed", gallery / "person-1.npy", "-o", output, *option)
        assert f"the weights of {preset} are untrained (random, seed 2023)" in result.stderr
        embeddings = load_embeddings(output)
        assert (embeddings.preset, embeddings.weights) == (preset, "seed:2023")
        assert embeddings.vectors.shape[1:] == (PRESETS[preset].parts, PRESETS[preset].channels)


def test_ragged_batch_equals_one_by_one(gallery: Path, tmp_path: Path) -> None:
    run("embed", gallery, "-o", tmp_path / "all.npz")
    together = load_embeddings(tmp_path / "all.npz").vectors
    for row, file in enumerate(sorted(gallery.iterdir())):
        run("embed", file, "-o", tmp_path / "one.npz")
        alone = load_embeddings(tmp_path / "one.npz").vectors[0]
        assert np.abs(alone - together[row]).max() <= 1e-5 * np.abs(alone).max()


def test_runs_agree_and_seeds_differ(gallery: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.npz" for name in "abc"]
    for file, seed in zip(files, (7, 7, 8), strict=True):
        run("embed", gallery, "-o", file, "--seed", seed)
    a, b, c = (load_embeddings(file) for file in files)
    assert np.array_equal(a.vectors, b.vectors)
    assert not np.allclose(a.vectors, c.vectors)
    assert (a.weights, c.weights) == ("seed:7", "seed:8")


def test_reference_and_cpu_agree(gallery: Path, tmp_path: Path) -> None:
    for backend in ("reference", "auto"):
        run("embed", gallery, "-o", tmp_path / f"{backend}.npz", "--backend", backend)
    a, b = (load_embeddings(tmp_path / f"{backend}.npz").vectors for backend in ("reference", "auto"))
    assert np.abs(a - b).max() <= 1e-4 * np.abs(a).max()


def test_max_frames_says_what_it_cuts(gallery: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.txt"
    result = run("embed", gallery, "-o", tmp_path / "short.npz", "--max-frames", 4, "--report", report)
    assert list(load_embeddings(tmp_path / "short.npz").lengths) == [4, 1, 4]
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("Only the first 4 frames (--max-frames)"))
    assert "of 2 sequences are used" in line
    assert "person-0" in line
    assert "person-1" not in line
    assert "person-2" in line
    assert "4 frames of 14 are used" in report.read_text()


def test_frame_rates_are_stored(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", silhouettes=walker(1, 5), fps=12.5)
    np.savez(tmp_path / "b.npz", silhouettes=walker(2, 5))
    run("embed", tmp_path / "a.npz", tmp_path / "b.npz", "-o", tmp_path / "out.npz")
    rates = load_embeddings(tmp_path / "out.npz").fps
    assert rates is not None
    assert np.array_equal(rates, [12.5, np.nan], equal_nan=True)


def test_one_part_of_a_partition(tmp_path: Path) -> None:
    for person in ("001", "002", "003"):
        folder = tmp_path / "data" / person / "nm-01" / "090"
        folder.mkdir(parents=True)
        np.save(folder / "090.npy", walker(int(person), 4))
    partition = tmp_path / "partition.json"
    partition.write_text(json.dumps({"TRAIN_SET": ["001"], "TEST_SET": ["002", "003"]}))
    data = (tmp_path / "data", "-o", tmp_path / "out.npz")
    run("embed", *data, "--partition", partition, "--part", "test")
    assert [name.split("/")[0] for name in load_embeddings(tmp_path / "out.npz").names] == ["002", "003"]
    result = run("embed", *data, "--part", "test", exit_code=1)
    assert "expected a partition (--partition) to choose the test set, got none" in " ".join(result.stderr.split())


def test_checkpoint_tells_the_preset(gallery: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = HSTL.from_preset("gait3d", num_classes=2)
    checkpoint = tmp_path / "weights.pt"
    checkpoints.save_checkpoint(checkpoint, model)
    result = run("embed", gallery / "person-0.npy", "-o", tmp_path / "a.npz", "--checkpoint", checkpoint)
    assert "untrained" not in result.output
    written = load_embeddings(tmp_path / "a.npz")
    assert written.preset == "gait3d"
    assert written.weights.startswith("sha256:")
    expected = model.embed([np.load(gallery / "person-0.npy")]).numpy()
    assert np.abs(written.vectors - expected).max() <= 1e-5 * np.abs(expected).max()


def test_bad_files_are_listed_and_the_others_embedded(gallery: Path, tmp_path: Path) -> None:
    (gallery / "broken.npy").write_bytes((gallery / "person-0.npy").read_bytes()[:200])
    np.save(gallery / "wrong.npy", np.zeros((5, 32), np.uint8))
    output = tmp_path / "gallery.npz"
    result = run("embed", gallery, "-o", output, exit_code=1)
    assert load_embeddings(output).names == ("person-0", "person-1", "person-2")
    assert "2 failed:" in result.stderr
    for name in ("broken.npy", "wrong.npy"):
        assert name in result.stderr.split("2 failed:")[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery", "gallery.npz"]


def test_an_input_that_is_not_there_stops_before_the_work(gallery: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    result = run("embed", gallery, tmp_path / "missing", "-o", tmp_path / "out.npz", exit_code=1)
    assert "missing" in result.stderr.splitlines()[-1]
    assert sorted(tmp_path.iterdir()) == before


def spoil(monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    """Have the network give NaN for one sequence of every batch."""
    whole = HSTL.embed

    def embed(self: HSTL, clips: object) -> torch.Tensor:
        vectors = whole(self, clips).clone()
        vectors[row, 0, 0] = float("nan")
        return vectors

    monkeypatch.setattr(HSTL, "embed", embed)


def test_embeddings_that_are_not_finite_are_listed_and_left_out(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 1)
    result = run("embed", gallery, "-o", tmp_path / "out.npz", exit_code=1)
    assert load_embeddings(tmp_path / "out.npz").names == ("person-0", "person-2")
    assert list(load_embeddings(tmp_path / "out.npz").lengths) == [9, 14]
    assert "person-1: the network gives an embedding with NaN" in result.stderr.split("1 failed:")[1]


def test_identify_lists_probes_that_are_not_finite(
    gallery: Path, probe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("embed", gallery, "-o", tmp_path / "g.npz")
    spoil(monkeypatch, 1)
    result = run("identify", "--gallery", tmp_path / "g.npz", "--probe", probe, exit_code=1)
    assert "nan" not in result.stdout
    assert "person-1: the network gives an embedding with NaN" in result.stderr.split("1 failed:")[1]


def test_nothing_is_written_when_nothing_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "broken.npy").write_bytes(b"nonsense")
    before = sorted(tmp_path.iterdir())
    result = run("embed", tmp_path / "broken.npy", "-o", tmp_path / "out.npz", exit_code=1)
    assert "1 failed:" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_equal_names_are_told_apart(gallery: Path, probe: Path, tmp_path: Path) -> None:
    run("embed", gallery / "person-0.npy", probe / "person-0.npy", "-o", tmp_path / "out.npz")
    first, second = load_embeddings(tmp_path / "out.npz").names
    assert first != second


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--preset", "casia"], "did you mean 'casia-b'?"),
        (["--backend", "refernce"], "did you mean 'reference'?"),
        (["--max-frames", 0], "--max-frames"),
        (["--seed", 2**63], "--seed"),
        (["-o", "missing-folder/out.npz"], "the folder 'missing-folder' does not exist"),
        (["-o", "out.txt"], "ends in .npz; got 'out.txt'"),
    ],
)
def test_wrong_options(gallery: Path, tmp_path: Path, arguments: list[object], sentence: str) -> None:
    result = run("embed", gallery, "-o", tmp_path / "out.npz", *arguments, exit_code=2)
    assert sentence in result.stderr
    assert not (tmp_path / "out.npz").exists()


def test_unwritable_output_is_refused_before_the_work(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    monkeypatch.setattr(HSTL, "embed", None)
    result = run("embed", gallery, "-o", tmp_path / "out.npz", exit_code=2)
    assert "out.npz' cannot be written: Read-only file system" in " ".join(result.stderr.split())


def test_left_out_frames_are_one_plain_line(tmp_path: Path) -> None:
    frames = np.zeros((3, 50, 40), np.uint8)
    frames[:2, 10:40, 10:30] = 255
    np.save(tmp_path / "walk.npy", frames)
    result = run("embed", tmp_path / "walk.npy", "-o", tmp_path / "out.npz")
    (line,) = (line for line in result.stderr.splitlines() if "Left out" in line)
    assert line.startswith("Left out while reading: 1 x frame without a body")
    assert ".py:" not in result.stderr
    result = run("embed", tmp_path / "walk.npy", "-o", tmp_path / "out.npz", "--strict", exit_code=1)
    assert "(--strict), got 1 x frame without a body" in result.stderr


def test_seed_and_checkpoint_exclude_each_other(gallery: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.pt"
    checkpoint.touch()
    result = run("embed", gallery, "-o", tmp_path / "o.npz", "--seed", 1, "--checkpoint", checkpoint, exit_code=2)
    assert "--seed is for untrained weights" in result.stderr


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_broken_checkpoint(gallery: Path, tmp_path: Path, content: bytes) -> None:
    checkpoint = tmp_path / "weights.pt"
    checkpoint.write_bytes(content)
    result = run("embed", gallery, "-o", tmp_path / "out.npz", "--checkpoint", checkpoint, exit_code=1)
    assert "weights.pt" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_backend_that_cannot_run_says_why(gallery: Path, tmp_path: Path, backend: str) -> None:
    result = run("embed", gallery, "-o", tmp_path / "out.npz", "--backend", backend, exit_code=1)
    assert f"backend {backend!r} cannot run" in result.stderr
    assert not (tmp_path / "out.npz").exists()


def test_failed_write_leaves_the_old_file(gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.npz"
    output.write_bytes(b"old")

    def full_disk(file: object, **arrays: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    result = run("embed", gallery / "person-1.npy", "-o", output, exit_code=1)
    assert "No space left on device" in result.stderr
    assert output.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery", "out.npz"]


def test_the_output_is_no_input(tmp_path: Path) -> None:
    path = tmp_path / "walk.npz"
    np.savez(path, walker(0, 6))
    before = path.read_bytes()
    assert "expected a file of its own, got " in run("embed", path, "-o", path, exit_code=2).stderr
    assert path.read_bytes() == before
