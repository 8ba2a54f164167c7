"""As much of torch as an engine of TensorRT needs to hold arrays on a GPU; here they stay where they are."""

import numpy as np

BY_ADDRESS: dict[int, np.ndarray] = {}
"""What tensors hold, so that the fake engine finds it again."""


class Tensor:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype

    def cuda(self) -> "Tensor":
        return self

    def cpu(self) -> "Tensor":
        return self

    def numpy(self) -> np.ndarray:
        return self.array

    def data_ptr(self) -> int:
        BY_ADDRESS[self.array.ctypes.data] = self.array
        return self.array.ctypes.data


def from_numpy(array: np.ndarray) -> Tensor:
    return Tensor(array)


def empty(shape: tuple[int, ...], dtype: np.dtype, device: str) -> Tensor:
    assert device == "cuda"
    return Tensor(np.empty(shape, dtype))


class Stream:
    cuda_stream = 7

    def synchronize(self) -> None:
        return


class cuda:  # noqa: N801
    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def current_stream() -> Stream:
        return Stream()
