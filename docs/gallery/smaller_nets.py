"""Fewer units at equal FLOPs: `Proximal` and `compact` against torch-pruning.

Need: an ordinary net with fewer units and channels. Data: Fashion-MNIST, LeNet-300-100
and a small residual net. Ours: `Proximal` with a count of what reads each unit, `L0` of
groups, its strength following a wanted number of FLOPs, then `compact`. Rival: the
`GroupNormPruner` of torch-pruning with its sparse learning (Fang et al. 2023), from
the same dense nets, with as many epochs, and tuned by the same function.
Bar: the rival's mean accuracy on the test images, at no fewer FLOPs than ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from data import fashion
from frame import COLOURS, Bar, Result, main, spread
from nets import kernels, lenet, residual

import keras_penalties as kp

SEEDS, BATCH = (0, 1, 2), 100
RATE = 0.05
"""The learning rate that all phases start from."""
POWER = 4
"""Of a channel's size, in what it is charged."""

Found = dict[tuple[str, str, float], list[list[float]]]


class Task(NamedTuple):
    """A net, and how long each of its phases takes."""

    make: Callable[[Sequence[int]], keras.Model]
    widths: tuple[int, ...]
    read_by: tuple[tuple[int, ...], ...]
    """For each of the widths the kernels that read these channels."""
    images: int
    epochs: int
    shares: tuple[float, ...]
    """Of the dense net's FLOPs."""
    reg: float
    """The strength of the rival's sparse learning."""
    ranked: bool
    """Whether the rival ranks channels over all layers, or takes alike from each."""
    cost: float
    """The power of a channel's FLOPs in what it is charged."""
    every: int
    """After how many steps the strength is looked at."""


def back(task: Task, weights: list[np.ndarray]) -> keras.Model:
    """The Keras model with these weights, and so with their widths."""
    reads = [w for w in weights if w.ndim > 1]
    model = task.make([reads[readers[0]].shape[-2] for readers in task.read_by])
    model.set_weights(weights)
    return model


def fitted(
    model: keras.Model, data: Any, epochs: int, optimizer: Any, *acts: Any
) -> keras.Model:
    """The model after a plain fit."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    model.fit(*data, BATCH, epochs, verbose=0, callbacks=list(acts))
    return model


def sgd(task: Task, epochs: int) -> keras.optimizers.SGD:
    """With momentum, its rate down to a twentieth along a cosine."""
    steps = epochs * task.images // BATCH
    down = keras.optimizers.schedules.CosineDecay(RATE, steps, alpha=0.05)
    return keras.optimizers.SGD(down, momentum=0.9)


def tuned(task: Task, model: keras.Model, data: Any, epochs: int = 0) -> keras.Model:
    """Trained on as it is: for ours, the rival and the dense net alike."""
    epochs = epochs or task.epochs
    return fitted(model, data, epochs, sgd(task, epochs))


class Follow(keras.callbacks.Callback):
    """Raises the strength while there are more FLOPs than wanted by now."""

    def __init__(self, task: Task, share: float, strength: float) -> None:
        super().__init__()
        self.share, self.steps = share, task.epochs * task.images // BATCH
        self.done, self.every, self.strength = 0, task.every, strength

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.done += 1
        if self.done % self.every:
            return
        self.model.get_weights()  # JAX' weights are put back by this
        if left_of(self.model) > wanted(self.done / self.steps / 0.8, self.share):
            self.strength *= float(np.exp(12.0 * self.every / self.steps))
        for term in kp.terms(self.model):
            kp.set_strength(self.model, term.name, self.strength)


def flops(model: keras.Model) -> int:
    """The FLOPs of one image."""
    return kp.sparsity(model).flops or 0  # None where a layer's are not known


def left_of(model: keras.Model) -> float:
    """The share of the FLOPs that `compact` would leave."""
    return (kp.sparsity(model).compact_flops or 0) / flops(model)


def wanted(done: float, share: float) -> float:
    """The share of FLOPs by now: fast at first, then slowly to the goal."""
    return float(share + (1.0 - share) * (1.0 - min(done, 1.0)) ** 3)


def sizes(task: Task, model: keras.Model) -> list[np.ndarray]:
    """Of each channel the norm of what reads it, over all kernels that do."""
    found, values = [], [keras.ops.convert_to_numpy(k) for k in kernels(model)]
    for readers in task.read_by:
        norms = [_norms(values[r]) for r in readers]
        found.append(np.sqrt(sum((n / n.mean()) ** 2 for n in norms) / len(norms)))
    return found


def _norms(kernel: np.ndarray) -> np.ndarray:
    others = tuple(axis for axis in range(kernel.ndim) if axis != kernel.ndim - 2)
    return np.sqrt(np.sum(kernel**2, axis=others))


def costs(task: Task, model: keras.Model) -> list[float]:
    """The share of the FLOPs that a channel of each width costs."""
    found, before = [], model.get_weights()
    for place in range(len(task.widths)):
        drop(task, model, place, 0)
        found.append(1.0 - left_of(model))
        model.set_weights(before)
    return found


def drop(task: Task, model: keras.Model, place: int, channel: int) -> None:
    """Set to zero what reads a channel."""
    for reader in task.read_by[place]:
        kernel = kernels(model)[reader]
        value = np.array(keras.ops.convert_to_numpy(kernel))
        value[..., channel, :] = 0.0
        kernel.assign(value)


def ours(task: Task, dense: keras.Model, data: Any, share: float) -> keras.Model:
    """A count of units and channels by `Proximal`, `compact`, tuning."""
    model = keras.models.clone_model(dense)
    model.set_weights(dense.get_weights())
    charges, least = {}, np.inf
    each = zip(task.read_by, sizes(task, model), costs(task, model), strict=True)
    for readers, size, cost in each:
        for kernel in (kernels(model)[reader] for reader in readers):
            norms = _norms(keras.ops.convert_to_numpy(kernel))
            charge = (cost**task.cost * norms.mean() ** 2) / size**POWER
            charges[kernel.path] = charge.tolist()
            least = min(least, (norms**2 / charge).min())
    start = float(least) / 2.0 / (10.0 * RATE)  # which drops the first channel
    penalties = {
        path: kp.penalties.Grouped(kp.penalties.L0(start), axis=-2, weights=charge)
        for path, charge in charges.items()
    }
    sparse = kp.optimizers.Proximal(sgd(task, task.epochs), penalties)
    fitted(model, data, task.epochs, sparse, Follow(task, share, start))
    while left_of(model) > share:
        left = sizes(task, model)
        low = [np.where(s > 0, s, np.inf) for s in left]
        place = int(np.argmin([s.min() for s in low]))
        drop(task, model, place, int(low[place].argmin()))
    return tuned(task, kp.compact(model), data)


READ_BY = (1, 3), (2,), (4, 6), (5,), (7, 9), (8,)
"""The shortcut of a stage is read by its block and by the next stage."""
TASKS = {
    "LeNet-300-100": Task(
        lenet, (300, 100), ((1,), (2,)), 50_000, 8, (0.2, 0.1, 0.05), 2e-4, True, 0.5, 5
    ),
    "residual net": Task(
        residual,
        (16, 16, 32, 32, 64, 64),
        READ_BY,
        8_000,
        5,
        (0.5, 0.25),
        1e-4,
        False,
        0.0,
        2,
    ),
}


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """In percent."""
    found = model.predict(x, 1000, verbose=0).argmax(axis=1)
    return 100.0 * float(np.mean(found == y))


def experiment(quick: bool) -> Result:
    x, y, *test = fashion()
    order = np.random.default_rng(123).permutation(60_000)
    x, y, test[0] = x[order][..., None], y[order], test[0][..., None]
    found: Found = {}
    for name, task in TASKS.items():
        if quick:
            task = task._replace(images=2_000, epochs=2, shares=task.shares[-1:])
        for seed in [0] if quick else SEEDS:
            data = x[: task.images], y[: task.images]
            for key, model in runs(task, data, seed):
                valid = accuracy(model, x[-10_000:], y[-10_000:])
                each = [valid, accuracy(model, *test), flops(model)]
                found.setdefault((name, *key), []).append(each)
                print(name, key, seed, each, flush=True)
    return Result(
        *table(found),
        settings=described(),
        curves={"|".join(map(str, key)): each for key, each in found.items()},
    )


CHOICE = (
    "on validation images, with seed 9, which is in no table. Ours: L1 or L0, size to "
    "the power of 0, 1, 2 or 4, FLOPs to 0, 0.5 or 1, not all together. "
    "torch-pruning: reg 0.0001 to 0.002 for LeNet, 0.00002 to 0.0005 for the residual "
    "net, scores divided by their mean or their maximum, global pruning or not. The "
    "rate: 0.05, better than 0.02 for both with the residual net; no other was tried "
    "for LeNet"
)


def described() -> dict[str, object]:
    """What was set, and how it was chosen."""
    return {
        "data": "the first "
        + ", ".join(f"{t.images:,} images for the {n}" for n, t in TASKS.items())
        + " of 60,000 in an order; 10,000 others to validate, 10,000 to test",
        "seeds": f"{list(SEEDS)}, of the net and of the order of the images",
        "epochs": ", ".join(f"{n}: {t.epochs}" for n, t in TASKS.items())
        + ", in each of three phases: dense, pruning (sparse learning for the "
        "rival), tuning; the dense net of the table has all three",
        "all": f"batches of {BATCH}; SGD with momentum 0.9, its rate from {RATE} "
        "down to a twentieth along a cosine, in each phase",
        "ours": f"a charge of FLOPs^cost / size^{POWER}, from the dense net; "
        + ", ".join(f"{n}: cost {t.cost:g}" for n, t in TASKS.items()),
        "torch-pruning": "GroupMagnitudeImportance(p=2, normalizer='mean'), "
        "400 steps; "
        + ", ".join(
            f"{n}: global_pruning={t.ranked}, reg {t.reg:g}" for n, t in TASKS.items()
        ),
        "choice": CHOICE,
    }


def runs(task: Task, data: Any, seed: int) -> Any:
    """Each method's nets, from one dense net."""
    keras.utils.set_random_seed(seed)
    dense = tuned(task, task.make(task.widths), data)
    whole = keras.models.clone_model(dense)
    whole.set_weights(dense.get_weights())
    yield (DENSE, 1.0), tuned(task, whole, data, 2 * task.epochs)
    from torch_rival import Rival  # both packages load slowly

    rival = Rival(dense, task.reg, task.ranked, seed)
    rival.learn(data, task.epochs, BATCH, RATE)
    for share in task.shares:
        keras.utils.set_random_seed(seed)
        small = ours(task, dense, data, share)
        yield (OURS, share), small
        keras.utils.set_random_seed(seed)
        theirs = back(task, rival.pruned(flops(small)))
        yield (THEIRS, share), tuned(task, theirs, data)


DENSE, OURS, THEIRS = "dense", "`Proximal`, `compact`", "torch-pruning"


def table(found: Found) -> tuple[list[Bar], tuple[str, ...], list[list[str]]]:
    """The bars, and the head and the rows of the table."""
    test = {key: float(np.mean(each, axis=0)[1]) for key, each in found.items()}
    bars = [
        Bar(
            f"{net}, accuracy at {100 * share:g} % of the FLOPs",
            test[net, OURS, share],
            ">=",
            test[net, THEIRS, share],
            THEIRS,
        )
        for net, method, share in found
        if method == OURS
    ]
    rows = []
    for (net, method, _), each in found.items():
        valid, tested, flops = zip(*each, strict=True)
        whole = found[net, DENSE, 1.0][0][2]
        shares = [f"{100 * n / whole:.2f}" for n in flops]
        rows.append(
            [net, method, ", ".join(shares), spread(valid, 2), spread(tested, 2)]
        )
    return bars, ("net", "method", "FLOPs %", "validation %", "test %"), rows


def draw(result: Result, figure: Any) -> None:
    """For each net the accuracies over the FLOPs, each seed a point."""
    curves = [(*key.split("|"), each) for key, each in result.curves.items()]
    nets = list(dict.fromkeys(net for net, *_ in curves))
    for axis, net in zip(figure.subplots(1, len(nets)), nets, strict=True):
        whole = np.mean(result.curves[f"{net}|{DENSE}|1.0"], 0)
        axis.axhline(whole[1], color="0.55", linestyle=":", label="dense")
        for method, colour in ((OURS, COLOURS[1]), (THEIRS, COLOURS[4])):
            own = np.array([e for n, m, _, e in curves if (n, m) == (net, method)])
            share = 100 * own[..., 2] / whole[2]
            axis.plot(
                share.mean(1),
                own[..., 1].mean(1),
                c=colour,
                lw=2,
                label=method.replace("`", ""),
            )
            axis.plot(share, own[..., 1], "o", c=colour, ms=5, alpha=0.6)
        shares = sorted({float(s) for n, m, s, _ in curves if (n, m) == (net, OURS)})
        axis.set(xscale="log", xlabel="FLOPs, in % of the dense net's", title=net)
        axis.set_xticks([100 * s for s in shares], [f"{100 * s:g}" for s in shares])
        axis.minorticks_off()
    figure.axes[0].set_ylabel("accuracy on test images, in %")
    figure.axes[0].legend(frameon=False, loc="lower right")


if __name__ == "__main__":
    main("smaller_nets", experiment, draw)
