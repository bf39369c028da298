"""The native checksum: which changes it sees, and what it must not depend on."""

import itertools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.csrc.cpu.helpers import GUARD, GUARD_VALUE, address, cpu

Bytes = npt.NDArray[np.uint8]
Digest = tuple[int, int]
PAGE = 4096
# Whole and broken words, pages, and chunks of 32 pages.
SIZES = (0, 1, 3, 4, 7, 8, 63, 64, 65, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 5, 32 * PAGE, 65 * PAGE + 13)


def random_bytes(size: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def digests(pieces: list[Bytes], threads: int = 1) -> list[Digest]:
    """The two halves for each piece of memory."""
    whole = torch.full((2 * len(pieces) + 2 * GUARD,), GUARD_VALUE, dtype=torch.int64)
    found = whole[GUARD : whole.numel() - GUARD]
    cpu.checksum(address(found), [piece.ctypes.data for piece in pieces], [piece.nbytes for piece in pieces], threads)
    assert (whole[:GUARD] == GUARD_VALUE).all()
    assert (whole[-GUARD:] == GUARD_VALUE).all()
    return [(int(first), int(second)) for first, second in found.view(-1, 2)]


def digest(data: Bytes) -> Digest:
    return digests([data])[0]


def assert_all_differ(found: Iterable[Digest]) -> None:
    """In each half, not only in both together."""
    for half in zip(*found):
        assert len(set(half)) == len(half)


def test_threads_addresses_and_instruction_sets_change_nothing(isa: str) -> None:
    pieces = [random_bytes(size, seed) for seed, size in enumerate(SIZES)]
    expected = _slowly(pieces)
    for threads in (1, 2, 3):
        assert digests(pieces, threads) == expected
    for offset in (1, 2, 4, 63):
        moved = []
        for piece in pieces:
            memory = np.empty(piece.size + 64, dtype=np.uint8)
            memory[offset : offset + piece.size] = piece
            moved.append(memory[offset : offset + piece.size])
        assert digests(moved, 2) == expected


def test_nothing_gets_nothing() -> None:
    assert digests([]) == []


def test_every_flip_of_a_bit_is_seen(isa: str) -> None:
    """Certainly, in each half: of sparse and dense words, at the ends of pages and in the last, broken word."""
    ends = (0, 5, PAGE - 1, PAGE, 2 * PAGE - 1, *range(2 * PAGE, 2 * PAGE + 6))
    for size, places in ((67, range(67)), (2 * PAGE + 6, ends)):
        for data in (random_bytes(size), np.zeros(size, np.uint8), np.full(size, 255, np.uint8)):
            flipped = [digest(data)]
            for place, bit in itertools.product(places, range(8)):
                data[place] ^= 1 << bit
                flipped.append(digest(data))
                data[place] ^= 1 << bit
            assert_all_differ(flipped)


def test_every_flip_of_a_bit_of_a_page_is_seen() -> None:
    data = random_bytes(PAGE)
    flipped = [digest(data)]
    for place, bit in itertools.product(range(PAGE), range(8)):
        data[place] ^= 1 << bit
        flipped.append(digest(data))
        data[place] ^= 1 << bit
    assert_all_differ(flipped)


def test_exchanged_and_negated_words_are_seen(isa: str) -> None:
    """Two of one page, and of different pages: all pairs of some, and neighbours everywhere."""
    words = np.random.default_rng(1).standard_normal(3 * PAGE // 4).astype(np.float32)
    some = [0, 1, 2, 15, 16, 17, 511, 512, 1022, 1023, 1024, 1025, 2047, 2048, 3071]
    pairs = {*itertools.combinations(some, 2), *((i, i + 1) for i in range(3, 1000, 2))}
    found = [digest(words.view(np.uint8))]
    for i, j in pairs:
        exchanged, negated = words.copy(), words.copy()
        exchanged[[i, j]] = words[[j, i]]
        negated[[i, j]] = -words[[i, j]]
        found += [digest(exchanged.view(np.uint8)), digest(negated.view(np.uint8))]
    assert_all_differ(found)


def test_exchanged_pages_are_seen(isa: str) -> None:
    """Of 4 pages every order, of 40 every exchange: these lie in two chunks."""
    data = random_bytes(4 * PAGE).reshape(4, PAGE)
    assert_all_differ(digest(data[list(order)].copy()) for order in itertools.permutations(range(4)))
    many = random_bytes(40 * PAGE).reshape(40, PAGE)
    found = []
    for i, j in itertools.combinations(range(0, 40, 3), 2):
        order = list(range(40))
        order[i], order[j] = j, i
        found.append(digest(many[order]))
    assert_all_differ(found)


def test_zeros_of_every_length_differ() -> None:
    """A broken last page counts as filled up by zeros, so the length must count."""
    zeros = np.zeros(70 * PAGE, np.uint8)
    assert_all_differ(digests([zeros[:size] for size in (*range(300), *range(PAGE - 9, PAGE + 9), 70 * PAGE)]))


def test_progressions_and_constants_do_not_cancel() -> None:
    """Steps up and down again, on several pages, would cancel if keys were in proportion to places."""
    words = np.random.default_rng(2).integers(0, 1 << 31, 4 * PAGE // 4, dtype=np.uint32)
    found = [digest(words.view(np.uint8))]
    for place, stride in itertools.product(range(0, 900, 7), (1, 2, 16, 32)):
        for steps in ((1, -2, 1), (1, -1, -1, 1), (1, -3, 3, -1)):
            changed = words.copy()
            for i, step in enumerate(steps):
                at = (place + i * stride) % 1024
                changed[at::1024] = changed[at::1024].astype(np.int64) + step
            found.append(digest(changed.view(np.uint8)))
    assert_all_differ(found)


def _scrambled(x: int) -> int:
    x = (x ^ x >> 15) * 0x2C1B3C6D % 2**32
    x = (x ^ x >> 13) * 0x297A2D39 % 2**32
    return x ^ x >> 16


def _mixed(x: int) -> int:
    x = (x ^ x >> 31) * 0x9E6C63D0676A9A99 % 2**64
    x = (x ^ x >> 29) * 0xD1342543DE82EF95 % 2**64
    return x ^ x >> 32


KEYS = np.array([_scrambled(0x3C6EF372 + i) for i in range(3 * 512)], dtype=np.uint64)


def _slowly(pieces: list[Bytes]) -> list[Digest]:
    """The definition at the top of csrc/cpu/checksum.cpp."""
    found = []
    for piece in pieces:
        pages = np.zeros(-(-piece.size // PAGE) * PAGE, np.uint8)
        pages[: piece.size] = piece
        first = second = _mixed(piece.size)
        for i, words in enumerate(pages.view(np.uint32).astype(np.uint64).reshape(-1, 512, 2)):
            even, odd = words[:, 0], words[:, 1]
            sums = [
                int((even * KEYS[at : at + 512] + odd * KEYS[at + 512 : at + 1024]).sum(dtype=np.uint64))
                for at in (0, 512)
            ]
            place = (i + 1) * 0x9E3779B97F4A7C15 % 2**64
            first = (first + _mixed((sums[0] + place) % 2**64)) % 2**64
            second = (second + _mixed(sums[1] ^ place)) % 2**64
        found.append((_signed(first), _signed(second)))
    return found


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x


def test_no_key_is_nothing_and_none_is_there_twice() -> None:
    assert len(set(KEYS.tolist())) == KEYS.size
    assert KEYS.all()
    assert pytest.approx(0.5, abs=0.02) == np.unpackbits(KEYS.astype(np.uint32).view(np.uint8)).mean()
