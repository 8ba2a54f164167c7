"""A CIFAR-10 ResNet-20 written by hand in torch, BatchNormalization folded: a training step beside ours."""

import time
from pathlib import Path

import torch
from torch import nn

from zc.ir.model import load
from zc.training.graph import GraphModule

ROUNDS = 15
BATCH = 64


class Block(nn.Module):
    """Two convolutions beside a shortcut that strides and pads channels with zeros."""

    def __init__(self, given: int, made: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(given, made, 3, stride, 1)
        self.second = nn.Conv2d(made, made, 3, 1, 1)
        self.plain, self.pad = stride == 1 and given == made, (made - given) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, given, H, W] -> [N, made, H / stride, W / stride]."""
        y = self.second(torch.relu(self.first(x)))
        shortcut = x if self.plain else nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return torch.relu(y + shortcut)


def resnet20() -> nn.Module:
    """The whole network."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU()]
    given = 16
    for made in (16, 32, 64):
        for i in range(3):
            layers.append(Block(given, made, 2 if i == 0 and made > 16 else 1))
            given = made
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def step_times(path: Path, threads: int) -> tuple[list[float], list[float]]:
    """Processor seconds of a forward and backward step of ours and of the hand-written one, taken in turn."""
    torch.set_num_threads(threads)
    model = load(path)
    ours, theirs = GraphModule(model), resnet20()
    name, output = model.inputs[0].name, model.outputs[0].name
    x = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)

    def step(module: nn.Module, scores: torch.Tensor) -> None:
        scores.square().mean().backward()
        module.zero_grad(set_to_none=True)

    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        start = time.process_time()
        step(ours, ours({name: x})[output])
        middle = time.process_time()
        step(theirs, theirs(x))
        times[0].append(middle - start)
        times[1].append(time.process_time() - middle)
    return times[0][2:], times[1][2:]
