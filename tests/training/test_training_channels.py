"""Channels that a narrower value has left of a wider one."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (the extra train)")

from zc.training.channels import left_channels  # noqa: E402


@pytest.mark.parametrize("shape", [(8, 6, 5, 5), (8, 25, 6)])
def test_channels_are_found_again_by_what_they_do(shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    teacher = torch.randn(*shape, generator=draw)
    axis = 1 if len(shape) == 4 else 2
    kept = torch.tensor([5, 0, 3])
    student = 0.5 * teacher.index_select(axis, kept) + 0.1 * torch.randn(1, generator=draw) + 2
    own, theirs = left_channels(student, teacher)
    assert own.tolist() == [0, 1, 2]
    assert theirs.tolist() == kept.tolist()


def test_a_channel_like_none_is_left_out() -> None:
    draw = torch.Generator().manual_seed(0)
    teacher = torch.randn(8, 4, 9, 9, generator=draw)
    student = torch.stack([torch.randn(8, 9, 9, generator=draw), teacher[:, 2]], 1)
    assert [index.tolist() for index in left_channels(student, teacher)] == [[1], [2]]
