"""Whether the labels of Pathfinder can be learned from its pixels: a small convolutional network.

    python -m tests.benchmarks.pathfinder_network --contour easy

It sees pictures as pictures, which no sequence model does; what it reaches above the floor says that contours
can be followed, and nothing of attention. The floor is what the places of the two discs tell alone, measured
on the training pictures and said beside each accuracy: below it nothing says that a contour was seen. On easy
contours the network tells 94 of 100 fresh pictures right after nine epochs of twelve, where the floor is 78;
of hard contours nothing is shown. About half a minute an epoch on one core.
"""

import argparse
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra_tasks.contours.task import Contours
from lra_tasks.interface import Examples
from lra_tasks.path_x import PathX
from lra_tasks.pathfinder import Pathfinder


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norms[0](self.first(x)))
        return F.relu(x + self.norms[1](self.second(hidden)))


def network(width: int) -> nn.Module:
    """Blocks at half and at a quarter of the size, and the largest of each channel."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1),
        *(Block(width, dilation) for dilation in (1, 2, 4)),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        *(Block(2 * width, dilation) for dilation in (1, 2, 1)),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, 2),
    )


def tensors(examples: Examples, size: int) -> tuple[Tensor, Tensor]:
    """Pictures between 0 and 1, and their labels."""
    pictures = torch.from_numpy(np.array(examples.stored)).view(-1, 1, size, size)
    return pictures, torch.from_numpy(np.array(examples.labels))


def accuracy(model: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    """The share of the pictures that are told right."""
    model.eval()
    with torch.no_grad():
        told = [model(part.float() / 255).argmax(1) for part in pictures.split(500)]
    return (torch.cat(told) == labels).float().mean().item()


def train(task: Contours, *, epochs: int, width: int, batch: int) -> None:
    """Train on the training split; say the accuracies on it and on the test split, and the floor."""
    torch.manual_seed(0)
    began = time.perf_counter()
    examples = task.examples("train")
    pictures, labels = tensors(examples, task.size)
    unseen = tensors(task.examples("test"), task.size)
    print(f"{len(labels)} + {len(unseen[1])} pictures, {time.perf_counter() - began:.1f} s")
    name, floor = max(task.floors(examples).items(), key=lambda one: one[1])
    model = network(width)
    steps = epochs * (len(labels) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(labels))
        for rows in order[: len(labels) // batch * batch].split(batch):
            # A contour turned over is a contour.
            turned = pictures[rows].float() / 255
            turned = turned.flip(2) if torch.rand(()) < 0.5 else turned
            turned = turned.flip(3) if torch.rand(()) < 0.5 else turned
            turned = turned.mT if torch.rand(()) < 0.5 else turned
            loss = F.cross_entropy(model(turned), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        told = accuracy(model, pictures[:2000], labels[:2000]), accuracy(model, *unseen)
        print(
            f"epoch {epoch + 1}: train {told[0]:.3f}, test {told[1]:.3f}, floor {floor:.3f} ({name}), "
            f"{time.perf_counter() - began:.0f} s",
            flush=True,
        )


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=32, choices=(32, 64, 128))
    parser.add_argument("--contour", default="hard", choices=("easy", "intermediate", "hard"))
    parser.add_argument("--train", type=int, default=20_000)
    parser.add_argument("--test", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--batch", type=int, default=40)
    given = parser.parse_args()
    kind = PathX if given.size >= 128 else Pathfinder
    sizes = {"train": given.train, "validation": 100, "test": given.test}
    task = kind(size=given.size, contour=given.contour, **sizes)  # type: ignore[arg-type]
    train(task, epochs=given.epochs, width=given.width, batch=given.batch)


if __name__ == "__main__":
    main()
