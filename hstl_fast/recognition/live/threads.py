"""Threads of OpenCV and PyTorch, so that frames and the passes beside them do not wait for each other."""

from __future__ import annotations

import torch

from hstl_fast.silhouettes.extras import opencv


class Halved:
    """Gives frames one half of the threads and passes the other, until `restore`.

    With all threads for both, each waits for the other's, and idle threads of PyTorch keep the processors busy. On two
    of them more frames came too late to be taken in single runs of half a minute; the gain was not measured apart.
    """

    def __init__(self) -> None:
        cv2 = opencv()
        self._of_opencv, self._of_torch = cv2.getNumThreads(), torch.get_num_threads()
        cv2.setNumThreads(max(1, self._of_opencv // 2))

    def begin_pass(self) -> None:
        """Limit the threads of PyTorch in the thread that calls; called once by the one that runs passes."""
        torch.set_num_threads(max(1, self._of_torch // 2))

    def restore(self) -> None:
        """Give all threads back. Called where the object was made."""
        opencv().setNumThreads(self._of_opencv)
        # The limit is that of one thread, but it is also where threads that are new begin.
        torch.set_num_threads(self._of_torch)
