"""The rival of `smaller_nets.py`: torch-pruning, and the way to torch and back."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch
import torch_pruning
from keras import layers
from nets import weighted
from torch.nn import functional

STEPS = 400
"""In which the net would lose all channels, as in its own program."""


class Rival:
    """torch-pruning, as its own `reproduce/main.py` does it for `group_sl`.

    There the scores are divided by their maximum; divided by their mean, they gave
    better nets here, on validation images.
    """

    def __init__(self, dense: keras.Model, reg: float, ranked: bool, seed: int) -> None:
        torch.manual_seed(seed)
        self.net = twin(dense)
        self.places = [
            np.prod(k.output.shape[1:-1])
            for k in weighted(dense)
            if hasattr(k, "kernel")
        ]
        self.pruner = torch_pruning.pruner.GroupNormPruner(
            self.net,
            torch.zeros(1, 1, 28, 28),
            torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="mean"),
            reg=reg,
            global_pruning=ranked,
            pruning_ratio=1.0,
            iterative_steps=STEPS,
            ignored_layers=[self.net.parts[-1]],
        )

    def learn(self, data: Any, epochs: int, batch: int, rate: float) -> None:
        """Sparse learning: its regularizer adds to the gradients."""
        x = torch.tensor(np.ascontiguousarray(data[0].transpose(0, 3, 1, 2)))
        y, steps = torch.tensor(data[1]).long(), epochs * len(x) // batch
        sgd = torch.optim.SGD(self.net.parameters(), rate, momentum=0.9)
        down = torch.optim.lr_scheduler.LambdaLR(
            sgd, lambda k: 0.05 + 0.95 * (0.5 + 0.5 * np.cos(np.pi * k / steps))
        )
        self.net.train()
        for _ in range(epochs):
            for part in torch.randperm(len(x)).split(batch):
                sgd.zero_grad()
                loss = torch.nn.functional.cross_entropy(self.net(x[part]), y[part])
                loss.backward()
                self.pruner.regularize(self.net)
                sgd.step()
                down.step()
        self.net.eval()

    def flops(self) -> float:
        """As `kp.sparsity` counts them."""
        reads = [part.weight for part in self.net.parts if part.weight.ndim > 1]
        each = zip(reads, self.places, strict=True)
        return 2.0 * sum(w.numel() * float(n) for w, n in each)

    def pruned(self, least: float) -> list[np.ndarray]:
        """The weights after the last step that leaves no fewer FLOPs than these."""
        kept = values(self.net)
        while self.flops() >= least and self.pruner.current_step < STEPS:
            kept = values(self.net)
            self.pruner.step()
        return kept


def twin(model: keras.Model) -> Any:
    """The same net in torch, with the same weights."""

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            own = [_as_torch(layer) for layer in weighted(model)]
            self.parts = torch.nn.ModuleList(own)
            self.residual = len(own) > 3

        def forward(self, x: Any) -> Any:
            *parts, last = self.parts
            if not self.residual:
                x = x.flatten(1)
                for part in parts:
                    x = part(x).relu()
                return last(x)
            for k in range(0, len(parts), 6):
                x = functional.max_pool2d(x, 2) if k else x
                a, b, c, d, e, f = parts[k : k + 6]
                x = b(a(x)).relu()
                x = (x + f(e(d(c(x)).relu()))).relu()
            return last(x.mean((2, 3)))

    return Twin()


def _as_torch(layer: Any) -> Any:
    values = layer.get_weights()
    if isinstance(layer, layers.Dense):
        part: Any = torch.nn.Linear(*values[0].shape)
    elif isinstance(layer, layers.Conv2D):
        (size, _, *channels), same = values[0].shape, layer.padding == "same"
        part = torch.nn.Conv2d(
            *channels, size, layer.strides[0], size // 2 * same, bias=False
        )
    else:
        part = torch.nn.BatchNorm2d(len(values[0]), eps=layer.epsilon, momentum=0.1)
    for own, value in zip(_tensors(part), values, strict=True):
        own.data.copy_(torch.tensor(np.array(value.transpose(_TO_TORCH[value.ndim]))))
    return part


_TO_TORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_FROM_TORCH = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def _tensors(part: Any) -> list[Any]:
    """A torch module's weights, in Keras' order."""
    named = part.state_dict(keep_vars=True)
    return [value for name, value in named.items() if "num_batches" not in name]


def values(net: Any) -> list[np.ndarray]:
    """The weights of a net of torch, as Keras has them."""
    return [
        np.array(t.detach().numpy().transpose(_FROM_TORCH[t.ndim]))
        for part in net.parts
        for t in _tensors(part)
    ]
