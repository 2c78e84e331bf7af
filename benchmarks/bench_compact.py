"""How many parameters, FLOPs and how much time `compact` saves, and at which accuracy.

    python benchmarks/bench_compact.py [--docs] [trained] [planted]

The `trained` models learned digits under a group penalty. In the `planted` models a
share of the units is set to zero by hand, to see where the time follows the FLOPs.
With --docs the tables go into docs/smaller_models.md.

The time is that of the compiled forward pass on a batch that is already loaded, on one
processor. The models take turns; the tables have medians, and the quartiles of the
rounds' ratios. Nothing is subtracted. The floor is the time of the same model with one
unit in each layer: no compression can be faster.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import keras
import numpy as np
from compact_models import MODELS, accuracy, digits, trained, tuned
from harness import interleaved, quartiles, use_threads
from keras import ops
from pages import table, write

import keras_penalties as kp

BATCH, ROUNDS, EPOCHS = 256, 40, 30
WIDE = {"mlp": 2048, "lenet": 128, "residual": 96}
SHARES = (0.75, 0.5, 0.25, 0.125, 0.0625)


def forward(model, x):
    """The model's inference as one compiled function that waits for its result."""
    x = ops.convert_to_tensor(x)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        run = tf.function(lambda: model(x, training=False))
        return lambda: run().numpy()
    if backend == "jax":
        import jax

        kinds = model.trainable_variables, model.non_trainable_variables
        values = [[v.value for v in kind] for kind in kinds]
        run = jax.jit(lambda t, n, x: model.stateless_call(t, n, x)[0])
        return lambda: run(*values, x).block_until_ready()
    import torch

    torch.set_num_threads(1)

    def eager():
        with torch.no_grad():
            model(x, training=False)

    return eager


def clocked(models, x):
    """The seconds of each model's forward pass, by round."""
    actions = {name: forward(model, x) for name, model in models.items()}
    return interleaved(actions, ROUNDS, warmups=3)


def gains(found, samples, small="small"):
    """The table cells on the FLOPs and the time of a model and of its smaller one."""
    flops = found.flops / found.compact_flops
    before, after, floor = (
        1e3 * statistics.median(samples[n]) for n in ("model", small, "floor")
    )
    share = before / after / flops
    pairs = zip(samples["model"], samples[small], strict=True)
    ratios = [b / a / flops for b, a in pairs]
    low, high = quartiles(ratios)
    old, new = found.flops / before, found.compact_flops / after
    return [
        f"{flops:.1f}x",
        f"{before:.2f} -> {after:.2f} ({floor:.2f})",
        f"{before / after:.1f}x",
        f"{share:.2f} ({low:.2f} to {high:.2f})",
        f"{1e-6 * BATCH * old:.0f} -> {1e-6 * BATCH * new:.0f}",
    ]


GAINS = "FLOPs | ms (floor) | gain | of the FLOPs' (quartiles) | GFLOP/s"


def trained_rows():
    """Digits: the penalised model, compacted, tuned, against one without penalty."""
    train, test = digits()
    for name in MODELS:
        keras.utils.set_random_seed(0)
        plain = tuned(trained(name, train, EPOCHS, strength=0.0), train)
        model = trained(name, train, EPOCHS)
        small, found = kp.compact(model), kp.sparsity(model)
        floor = MODELS[name][0](1)
        models = {"model": model, "small": small, "floor": floor}
        samples = clocked(models, train[0][:BATCH])
        reached = accuracy(model, test), accuracy(tuned(small, train), test)
        scores = [f"{100 * a:.1f}" for a in (accuracy(plain, test), *reached)]
        sizes = f"{found.parameters:,} -> {found.compact_parameters:,}"
        yield [name, *scores, sizes, *gains(found, samples)]


def planted(name, width, share):
    """A model in which only a share of the units of each hidden layer is live."""
    model = MODELS[name][0](width)
    kernels = [w for w in model.trainable_weights if w.path.endswith("kernel")]
    for kernel in kernels[:-1]:
        values = np.array(ops.convert_to_numpy(kernel))
        values[..., round(share * values.shape[-1]) :] = 0
        kernel.assign(values)
    return model


def planted_rows():
    """The time for each share of live units."""
    x = digits()[0][0][:BATCH]
    for name, width in WIDE.items():
        models = {"model": MODELS[name][0](width), "floor": MODELS[name][0](1)}
        found = {}
        for share in SHARES:
            whole = planted(name, width, share)
            models[share], found[share] = kp.compact(whole), kp.sparsity(whole)
        samples = clocked(models, x)
        for share in SHARES:
            label = f"{name} {width}", f"{100 * share:.3g} %"
            yield [*label, *gains(found[share], samples, share)]


SCORES = "plain % | penalised % | compact, tuned % | parameters"
TABLES = {
    "trained": (f"model | {SCORES} | {GAINS}", trained_rows),
    "planted": (f"model | units | {GAINS}", planted_rows),
}


def main(names):
    """Print the tables of these names, all if there are none."""
    use_threads(1)  # the backend starts with its first tensor
    for name in [n for n in names if n != "--docs"] or TABLES:
        head, rows = TABLES[name]
        text = table(head, rows())
        print(
            f"{name}, {keras.backend.backend()}, batch {BATCH}\n\n{text}\n", flush=True
        )
        if "--docs" in names:
            write("smaller_models.md", f"bench_compact {name}", text)


if __name__ == "__main__":
    main(sys.argv[1:])
