"""`python -m benchmarks.data.formats`: formats for packed silhouettes, by size, speed and what damage does to them.

Needs pyarrow, zarr, lmdb and h5py; a format whose library is missing is left out. Every format holds the same sequences
in chunks of 16 frames, compressed by zstd (HDF5, which has no zstd of its own, by gzip with Fletcher's checksum).
"""

from __future__ import annotations

import importlib.util
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

STREET = Path(__file__).parents[2] / "tests" / "data" / "street"
CHUNK, WINDOW, SEQUENCES, FRAMES = 16, 30, 400, 96
SECONDS, ROUNDS, FLIPS = 0.5, 5, 30


class Format(ABC):
    """A way to store sequences of `FRAMES` frames in one file, and to read windows of them."""

    needs: tuple[str, ...]

    @abstractmethod
    def write(self, path: Path, sequences: np.ndarray) -> None:
        """Write sequences `[n, FRAMES, 64, 64]` uint8."""

    @abstractmethod
    def open(self, path: Path) -> Callable[[int, int], np.ndarray]:
        """Return a function of a sequence and a first frame that reads `WINDOW` frames."""


def windows_of_chunks(read: Callable[[int, int], np.ndarray]) -> Callable[[int, int], np.ndarray]:
    """Turn a function that reads a chunk of a sequence into one that reads a window."""

    def window(sequence: int, first: int) -> np.ndarray:
        chunks = range(first // CHUNK, (first + WINDOW - 1) // CHUNK + 1)
        frames = np.concatenate([read(sequence, chunk) for chunk in chunks])
        return frames[first % CHUNK :][:WINDOW]

    return window


def chunks_of(sequence: np.ndarray) -> Iterator[bytes]:
    """Compress a sequence chunk by chunk, each after its checksum."""
    import pyarrow as pa

    codec = pa.Codec("zstd", compression_level=1)
    for start in range(0, len(sequence), CHUNK):
        body = codec.compress(sequence[start : start + CHUNK].tobytes(), asbytes=True)
        yield zlib.crc32(body).to_bytes(4, "little") + body


def chunk_from(stored: Any) -> np.ndarray:
    """Check and decompress what `chunks_of` gives."""
    import pyarrow as pa

    view = memoryview(stored)
    if zlib.crc32(view[4:]) != int.from_bytes(view[:4], "little"):
        raise ValueError("damaged chunk")
    frames = pa.Codec("zstd").decompress(view[4:], CHUNK * 4096)
    return np.frombuffer(frames, np.uint8).reshape(CHUNK, 64, 64)


class Arrow(Format):
    """Arrow IPC file, mapped; a row a sequence with a list of compressed chunks."""

    needs = ("pyarrow",)

    def write(self, path: Path, sequences: np.ndarray) -> None:
        import pyarrow as pa

        schema = pa.schema([("chunks", pa.list_(pa.binary()))])
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for start in range(0, len(sequences), 16):
                rows = [list(chunks_of(sequence)) for sequence in sequences[start : start + 16]]
                writer.write_batch(pa.record_batch([pa.array(rows, schema.field(0).type)], schema=schema))

    def open(self, path: Path) -> Callable[[int, int], np.ndarray]:
        import pyarrow as pa

        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        places = []
        for k in range(reader.num_record_batches):
            batch = reader.get_batch(k)
            batch.validate(full=True)
            lists = batch.column(0)
            offsets = np.frombuffer(lists.values.buffers()[1], np.int32)
            data = memoryview(lists.values.buffers()[2])
            starts = lists.offsets.to_numpy()
            places += [(data, offsets[starts[row] : starts[row + 1] + 1].tolist()) for row in range(len(lists))]

        def chunk(sequence: int, number: int) -> np.ndarray:
            data, offsets = places[sequence]
            return chunk_from(data[offsets[number] : offsets[number + 1]])

        return windows_of_chunks(chunk)


class Zarr(Format):
    """Zarr 3, one array in a zip file; shards of 64 chunks with zstd and crc32c."""

    needs = ("zarr",)

    def write(self, path: Path, sequences: np.ndarray) -> None:
        import zarr
        from zarr.codecs import Crc32cCodec, ZstdCodec

        frames = sequences.reshape(-1, 64, 64)
        with zarr.storage.ZipStore(path, mode="w") as store:
            array = zarr.create_array(
                store,
                shape=frames.shape,
                dtype="uint8",
                chunks=(CHUNK, 64, 64),
                shards=(64 * CHUNK, 64, 64),
                compressors=[ZstdCodec(level=1), Crc32cCodec()],
            )
            array[:] = frames

    def open(self, path: Path) -> Callable[[int, int], np.ndarray]:
        import zarr

        array = zarr.open_array(zarr.storage.ZipStore(path, mode="r"), mode="r")
        return lambda sequence, first: array[sequence * FRAMES + first : sequence * FRAMES + first + WINDOW]


class Lmdb(Format):
    """LMDB; a key a chunk, compressed by pyarrow, after its checksum."""

    needs = ("lmdb", "pyarrow")

    def write(self, path: Path, sequences: np.ndarray) -> None:
        import lmdb

        with lmdb.open(str(path), subdir=False, map_size=2**30, lock=False) as store, store.begin(write=True) as edit:
            for number, sequence in enumerate(sequences):
                for chunk, stored in enumerate(chunks_of(sequence)):
                    edit.put(f"{number}/{chunk}".encode(), stored)

    def open(self, path: Path) -> Callable[[int, int], np.ndarray]:
        import lmdb

        store = lmdb.open(str(path), subdir=False, readonly=True, lock=False)
        look = store.begin(buffers=True)
        return windows_of_chunks(lambda sequence, chunk: chunk_from(look.get(f"{sequence}/{chunk}".encode())))


class Hdf5(Format):
    """HDF5, one data set of chunks with gzip and Fletcher's checksum."""

    needs = ("h5py",)

    def write(self, path: Path, sequences: np.ndarray) -> None:
        import h5py

        with h5py.File(path, "w") as file:
            shape = (CHUNK, 64, 64)
            frames = sequences.reshape(-1, 64, 64)
            file.create_dataset("frames", data=frames, chunks=shape, compression="gzip", fletcher32=True)

    def open(self, path: Path) -> Callable[[int, int], np.ndarray]:
        import h5py

        frames = h5py.File(path)["frames"]
        return lambda sequence, first: frames[sequence * FRAMES + first : sequence * FRAMES + first + WINDOW]


class Packed(Format):
    """The packed files of hstl_fast: Arrow IPC with an index at both ends."""

    needs = ("pyarrow", "torch")

    def write(self, path: Path, sequences: np.ndarray) -> None:
        from hstl_fast.data import Item, Sequences, pack
        from hstl_fast.silhouettes.io import Reading

        class Given(Sequences):
            def reading(self, index: int) -> Reading:
                return Reading(sequences[index])

        names = (f"{number:05}" for number in range(len(sequences)))
        pack(Given([Item(name, "", "", name) for name in names], "memory", "folders"), path, workers=1)

    def open(self, path: Path) -> Callable[[int, int], np.ndarray]:
        from hstl_fast.data import open_packed

        packed = open_packed(path)
        at = {int(name): number for number, name in enumerate(packed.names)}
        return lambda sequence, first: packed.read_frames(at[sequence], first + np.arange(WINDOW))


FORMATS: dict[str, Format] = {"packed": Packed(), "arrow": Arrow(), "zarr": Zarr(), "lmdb": Lmdb(), "hdf5": Hdf5()}


def walks(number: int = SEQUENCES) -> np.ndarray:
    """Sequences `[number, FRAMES, 64, 64]` of real people, none like another."""
    gallery = [np.load(path) for path in sorted(STREET.glob("*/*.np[yz]"))]
    clips = [each if isinstance(each, np.ndarray) else each["silhouettes"] for each in gallery]
    return np.stack(
        [
            np.roll(clips[k % len(clips)][(k + np.arange(FRAMES)) % len(clips[k % len(clips)])], k // 64, axis=1)
            for k in range(number)
        ]
    )


def rate(read: Callable[[int, int], np.ndarray]) -> float:
    """Count random windows in a second of the processor's time, so that other programs do not matter."""
    draw, count, start = np.random.default_rng(0), 0, time.process_time()
    while time.process_time() - start < SECONDS:
        for _ in range(20):
            read(int(draw.integers(SEQUENCES)), int(draw.integers(FRAMES - WINDOW + 1)))
        count += 20
    return count / (time.process_time() - start)


def judge(name: str, path: Path) -> str:
    """Say what of a damaged file can be read; runs in a process that may crash."""
    truth = walks()
    try:
        read = FORMATS[name].open(path)
    except Exception:
        return "cannot be opened"
    wrong = lost = 0
    for sequence in range(SEQUENCES):
        try:
            wrong += any(
                not np.array_equal(read(sequence, first), truth[sequence, first : first + WINDOW])
                for first in (0, 30, 66)
            )
        except Exception:
            lost += 1
    if wrong:
        return "wrong frames, no error"
    return "all read" if not lost else "one sequence lost" if lost == 1 else f"{lost} of {SEQUENCES} lost"


def judged(name: str, path: Path) -> str:
    """Judge a file in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data.formats", "judge", name, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return done.stdout.strip() if done.returncode == 0 else f"the process died ({done.returncode})"


def damaged(path: Path, offset: int, folder: Path) -> Path:
    """Copy a file with one byte flipped."""
    copy = folder / "flipped"
    shutil.copy(path, copy)
    with copy.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x55]))
    return copy


def places(path: Path) -> list[int]:
    """Choose bytes to flip: a third each near the beginning, near the end and anywhere."""
    size, draw = path.stat().st_size, np.random.default_rng(1)
    near = min(4096, size)
    return [
        int(draw.integers(low, high))
        for low, high in ((0, near), (size - near, size), (0, size))
        for _ in range(FLIPS // 3)
    ]


def main() -> None:
    """Print sizes and speeds of the formats that are installed, then what damage does to each."""
    sequences, paths, readers = walks(), {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, form in FORMATS.items():
            if missing := [module for module in form.needs if importlib.util.find_spec(module) is None]:
                print(f"{name}: left out, needs {', '.join(missing)}")
                continue
            paths[name] = Path(scratch) / f"{name}.{'zip' if name == 'zarr' else 'pack'}"
            form.write(paths[name], sequences)
            read = readers[name] = form.open(paths[name])
            assert all(np.array_equal(read(k, 7), sequences[k, 7 : 7 + WINDOW]) for k in range(SEQUENCES))
        # Interleaved; every file was read once above.
        rates = [{name: rate(read) for name, read in readers.items()} for _ in range(ROUNDS)]
        for name, path in paths.items():
            share = path.stat().st_blocks * 512 / sequences.nbytes
            speed = statistics.median(each[name] for each in rates)
            print(f"{name}: {share:.4f} of the frames' size, {speed:.0f} windows of {WINDOW} a second", flush=True)
        for name, path in paths.items():
            flipped = Counter(judged(name, damaged(path, place, Path(scratch))) for place in places(path))
            cut = Path(scratch) / "cut"
            cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            print(
                f"{name}: a byte flipped: {dict(flipped.most_common())}; cut in half: {judged(name, cut)}", flush=True
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["judge"]:
        print(judge(sys.argv[2], Path(sys.argv[3])))
    else:
        main()
