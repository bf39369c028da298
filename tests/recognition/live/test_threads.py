"""Threads shared between frames and passes, and given back."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

pytest.importorskip("cv2")

import cv2

from hstl_fast.recognition.live.threads import Halved


def test_threads_are_halved_and_given_back() -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(4)
        cv2.setNumThreads(4)
        halved = Halved()
        with ThreadPoolExecutor(1, initializer=halved.begin_pass) as executor:
            assert executor.submit(torch.get_num_threads).result() == 2
            assert (torch.get_num_threads(), cv2.getNumThreads()) == (4, 2)
            halved.restore()
        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(torch.get_num_threads).result() == 4
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (4, 4)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
