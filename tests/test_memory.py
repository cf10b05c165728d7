"""What a stack keeps lies on large pages, each tensor in a place of its own, and learns the same as anywhere else."""

import mmap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import float32, float64

from bnlab import Arm, Experiment, Settings, train
from bnlab.memory import LINE, PIECE, Memory

needs_large_pages = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="only Linux has them")


@pytest.mark.parametrize("dtype", [float32, float64])
def test_every_tensor_is_zero_and_written_to_alone(dtype):
    memory = Memory("cpu", dtype)
    fifth = PIECE // dtype.itemsize // 5 + 1  # of a piece, and some more: it holds four
    shapes = [(3,), (2, 5, 7), (0,), (4, 0, 2), (1,), (PIECE // dtype.itemsize + 1,), (33, 31), *[(fifth,)] * 6]
    tensors = [memory.zeros(*shape) for shape in shapes]
    for i, (tensor, shape) in enumerate(zip(tensors, shapes, strict=True), 1):
        assert tensor.shape == shape and tensor.dtype == dtype and tensor.is_contiguous()
        assert not tensor.any()
        tensor.fill_(i)
    for i, tensor in enumerate(tensors, 1):
        assert (tensor == i).all()


def flags(address: int) -> list[str]:
    """What Linux is asked for where the address lies: proc(5), VmFlags."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            low, high = (int(end, 16) for end in first.split("-"))
            here = low <= address < high
        elif here and first == "VmFlags:":
            return line.split()[1:]
    raise KeyError(address)


@needs_large_pages
@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="not every system has them")
def test_it_lies_on_large_pages():
    memory = Memory("cpu", float32)
    first, second = memory.zeros(5), memory.zeros(5)
    assert first.data_ptr() % LINE == 0 and second.data_ptr() == first.data_ptr() + LINE
    assert "hg" in flags(first.data_ptr()) and "hg" not in flags(torch.zeros(2**24).data_ptr())


@needs_large_pages
def test_a_system_without_large_pages_has_room_all_the_same(monkeypatch):
    class Small(mmap.mmap):
        def madvise(self, *_):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Small)
    assert not Memory("cpu", float32).zeros(3, 5).any()


@needs_large_pages
def test_what_has_no_room_says_so():
    with pytest.raises(MemoryError, match="no room"):
        Memory("cpu", float32).zeros(2**60)


@needs_large_pages
def test_networks_learn_the_same_to_the_last_bit_where_there_are_none(monkeypatch):
    arms = tuple(Arm(label=norm, changes={"norm": norm}) for norm in ("none", "batch", "layer"))
    experiment = Experiment(settings=Settings(depth=3, width=17, steps=5, optimizer="adam"), arms=arms, seeds=(0, 1))

    def recorded():
        return [rows for record in train(experiment) for part in record.parts for rows in part.rows.values()]

    large = recorded()
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    for a, b in zip(large, recorded(), strict=True):
        np.testing.assert_array_equal(a, b)
