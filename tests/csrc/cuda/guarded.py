"""Tensors between inaccessible pages, so that a kernel of the emulator cannot read or write beside them unseen."""

import ctypes
import mmap

import torch

ALIGNMENT = 16  # of the tensors' memory; as many bytes less one may lie between a tensor's end and the page


def guarded(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy that ends where an inaccessible page begins, and begins behind a filled one after another."""
    tensor = tensor.contiguous()
    page = mmap.PAGESIZE
    size = tensor.numel() * tensor.element_size()
    room = -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
    pages = -(-room // page) * page
    memory = mmap.mmap(-1, pages + 2 * page)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for guard in (begin, begin + page + pages):
        if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) != 0:  # PROT_NONE
            raise OSError(ctypes.get_errno(), "mprotect failed")
    if size == 0:
        return torch.empty_like(tensor)
    copy = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=page + pages - room)
    return copy.view(tensor.shape).copy_(tensor)
