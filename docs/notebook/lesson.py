# %% [markdown]
# # Penalties in Keras: a lesson
#
# What a network learns is decided by its *objective*:
#
# > objective = data loss + Σ strength × penalty(target)
#
# This notebook builds objectives for one small data set, scikit-learn's handwritten
# digits. The first three parts are a classic: a squared error of your own, a sparse
# autoencoder, and the Kullback-Leibler term that makes its code sparse. The other parts
# are newer: strengths that move, weights that are exactly zero, dictionaries. Each part
# ends in a picture or a number that shows whether it worked. It all runs in two minutes
# on a laptop.
#
# You need `pip install "keras-penalties[jax,demo]"`. TensorFlow and torch do as well:
# change the name in the first cell.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # before Keras is imported

import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import keras_penalties as kp
from keras_penalties.demo import FullBatches

keras.utils.set_random_seed(0)
x = (load_digits().data / 16.0).astype("float32")  # 8 x 8 pixels, 0 is white
train, test = x[:1500], x[1500:]
print(f"{len(train):,} digits to learn from, {len(test)} to test on")

# %% [markdown]
# Three small helpers. `fit` takes full batches: the whole data is one batch, many times
# an epoch. The learning rate falls to 0, so that the training ends at rest.


# %%
def fit(model, epochs, rate=0.03, loss="half_sum_squared_error", optimizer=None):
    """Train with Adam, 50 full-batch steps in an epoch."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * 50)
    model.compile(
        optimizer or keras.optimizers.Adam(schedule),
        loss=loss,
        steps_per_execution=1 if keras.backend.backend() == "torch" else 50,
    )
    return model.fit(FullBatches(train, 50), epochs=epochs, verbose=0)


def explained(model):
    """The share of the test digits' variance that the reconstruction explains."""
    rebuilt = model.predict(test, batch_size=len(test), verbose=0)
    return 1 - np.sum((test - rebuilt) ** 2) / np.sum((test - train.mean(0)) ** 2)


def show(images, columns=16, title="", signed=True):
    """Images of 8 x 8 pixels in a grid, each on a scale of its own."""
    rows = -(-len(images) // columns)
    size = 0.62 * columns, 0.62 * rows + 0.4 * bool(title)
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained")
    figure.suptitle(title)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image in zip(grid.flat, images, strict=False):
        top = max(abs(image).max(), 1e-9)
        low, colors = (-top, "RdBu_r") if signed else (0, "gray_r")
        axes.imshow(image.reshape(8, 8), vmin=low, vmax=top, cmap=colors)
    plt.show()


show(train[:32], title="Some of the digits", signed=False)

# %% [markdown]
# ## 1. A squared error of your own
#
# A loss is a function of `(y_true, y_pred)`. `register` gives it a name, which
# `compile` takes and a saved file keeps.


# %%
@kp.register(package="lesson")
def plain_squared_error(y_actual, y_pred):
    return (y_actual - y_pred) ** 2


linear = keras.Sequential(
    [keras.Input((64,)), keras.layers.Dense(16), keras.layers.Dense(64)]
)
history = fit(linear, epochs=40, rate=0.02, loss="plain_squared_error")
print(f"the first epoch {history.history['loss'][0]:.3f}, ", end="")
print(f"the last {history.history['loss'][-1]:.3f}")

# %% [markdown]
# Is it right? A linear autoencoder with 16 hidden units can do no better than the first
# 16 principal components, and gets there:

# %%
pca = PCA(16).fit(train)
rebuilt = pca.inverse_transform(pca.transform(train))
theirs = np.mean((train - rebuilt) ** 2)
ours = linear.evaluate(train, train, batch_size=len(train), verbose=0)
print(f"mean squared error: PCA {theirs:.5f}, ours {ours:.5f}")
print("within 1 %:", bool(theirs <= ours * (1 + 1e-5) <= 1.01 * theirs))

# %% [markdown]
# ## 2. The sparse autoencoder
#
# Its objective, without the sparse part so far, is
#
# $$J = \tfrac12 \sum \|x - \hat x\|^2
# + \tfrac{\alpha}{2}\left(\|W_1\|^2 + \|W_2\|^2\right), \qquad \alpha = 0.1,$$
#
# a sum over all digits. The hidden layer is three times as wide as the input. A unit
# that is always one takes the place of the biases, so that the decay reaches them too.

# %%
decayed = kp.models.SparseAutoencoder.from_preset("tutorial")
whole_sum = kp.losses.HalfSumSquaredError(reduction="sum")
history = fit(decayed, epochs=20, rate=0.01, loss=whole_sum)
print(kp.terms(decayed))

# %% [markdown]
# The table lists what is added to the loss. Keras' own number for the whole objective
# is what the formula says, in NumPy alone:


# %%
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def with_one(a):
    return np.concatenate([a, np.ones((len(a), 1))], axis=1)


w1, w2 = (
    keras.ops.convert_to_numpy(layer.layer.kernel).astype("float64")
    for layer in (decayed.encoder, decayed.decoder)
)
rebuilt = sigmoid(with_one(sigmoid(with_one(train) @ w1)) @ w2)
by_hand = 0.5 * np.sum((train - rebuilt) ** 2)
by_hand += 0.1 / 2 * (np.sum(w1**2) + np.sum(w2**2))
by_keras = decayed.evaluate(
    train, train, batch_size=len(train), verbose=0, return_dict=True
)["loss"]
print(f"by hand {by_hand:.3f}, by Keras {by_keras:.3f}")
print("equal:", bool(np.isclose(by_hand, by_keras, rtol=1e-5)))

# %%
rebuilt = decayed.predict(test[:16], verbose=0)
both = np.concatenate([test[:16], rebuilt])
show(both, title="Digits, and what the model makes of them", signed=False)

# %% [markdown]
# ## 3. The sparse code
#
# A rebuilt picture says little about the code. Here each unit is half active on a
# digit:

# %%
code = keras.ops.convert_to_numpy(decayed.encode(test))
print(f"mean activation {code.mean():.2f}")

# %% [markdown]
# The Kullback-Leibler term draws each unit's mean activation $\hat\rho_j$ to a rate
# $\rho$. It charges
#
# $$\beta \sum_j \rho \log\frac{\rho}{\hat\rho_j}
# + (1 - \rho) \log\frac{1 - \rho}{1 - \hat\rho_j}.$$
#
# From here on the loss is a *mean* over the digits, so the strengths do not depend on
# how many digits there are. `plot_terms` stacks what `fit` has logged.

# %%
sparse = kp.models.SparseAutoencoder(
    hidden_units=64, weight_decay=2e-4, sparsity=3.0, rate=0.1
)
history = fit(sparse, epochs=30)

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
kp.plot_terms(history, ax=left)
for name in ("code_kl_sparsity", "encoder_kernel_l2", "decoder_kernel_l2"):
    right.plot(np.arange(1, 31), history.history[name], label=name)
right.set(yscale="log", xlabel="epoch", ylabel="each penalty (log scale)")
right.legend(frameon=False)
plt.show()

# %%
code = keras.ops.convert_to_numpy(sparse.encode(test))
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.hist(code.mean(axis=0), bins=np.linspace(0, 0.5, 26))
axes.axvline(0.1, color="black", linestyle="--", label="rate ρ = 0.1")
axes.set(xlabel="mean activation of a unit, test digits", ylabel="units")
axes.legend(frameon=False)
plt.show()
print(f"mean activation {code.mean():.2f}, variance explained {explained(sparse):.0%}")

# %% [markdown]
# **Think.** Why must β be about 1,500 times as large if the loss is a *sum* over the
# digits? (The term is a function of the batch's mean: it counts once, not once a
# digit.)

# %% [markdown]
# ## 4. The same penalties on a model of your own
#
# `kp.penalize` takes any functional model and a dict of rules. One more rule makes the
# code readable. Without it a unit may draw ink that another takes away; with weights
# that are not negative it can only *add*, and so it must learn a stroke.


# %%
def autoencoder():
    """Plain Keras, the same weights at each call."""
    keras.utils.set_random_seed(0)
    rate = keras.initializers.Constant(np.log(0.1 / 0.9))  # the sigmoid starts at 0.1
    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(64, "sigmoid", bias_initializer=rate, name="encoder")
    decoder = keras.layers.Dense(64, "sigmoid", name="decoder")
    return keras.Model(inputs, decoder(hidden(inputs)))


rules = {
    ".*/kernel": "l2(1e-4)",
    "encoder": {"outputs": "kl_sparsity(1.0, rate=0.1)"},
}
strokes = {**rules, "decoder/kernel": "non_negative(0.1)"}
for title, added in {
    "no penalty": {},
    "decay and sparse code": rules,
    "and nothing negative": strokes,
}.items():
    model = kp.penalize(autoencoder(), added) if added else autoencoder()
    fit(model, epochs=30)
    weights = keras.ops.convert_to_numpy(model.get_layer("decoder").kernel)
    show(weights[:32], title=f"{title}: {explained(model):.0%} explained")

# %% [markdown]
# Red adds ink, blue takes ink away. The price of a readable code is a less exact
# picture.
#
# ## 5. A strength that moves
#
# A strength may be a number, or something that moves. A ramp lets a model first learn
# to rebuild and then to be sparse. The strength is logged beside the term.

# %%
ramp = kp.strengths.LinearRamp(0.0, 3.0, steps=1000)
ramped = kp.penalize(
    autoencoder(),
    {
        ".*/kernel": "l2(1e-4)",
        "encoder": {"outputs": kp.penalties.KLSparsity(ramp, rate=0.1)},
    },
)
logs = fit(ramped, epochs=30).history

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(np.arange(1, 31), logs["encoder_output_kl_sparsity_strength"])
left.set(xlabel="epoch", ylabel="strength")
right.plot(np.arange(1, 31), logs["encoder_output_kl_sparsity"])
right.set(xlabel="epoch", ylabel="strength × KL")
plt.show()

# %% [markdown]
# ## 6. A target in place of a strength
#
# Often you know the goal and not the strength that leads there. Here the goal is a mean
# activation of 0.15. A `Target` moves the strength of an L1 penalty until it is met.

# %%
target = kp.Target(0.15, of="mean", initial=1e-3, rate=0.02, relative=True)
held = kp.penalize(autoencoder(), {"encoder": {"outputs": kp.penalties.L1(target)}})
logs = fit(held, epochs=40).history
encoder = keras.Model(held.inputs, held.get_layer("encoder").output)
mean = float(encoder.predict(train, batch_size=len(train), verbose=0).mean())

plt.figure(figsize=(5, 3), layout="constrained")
plt.plot(np.arange(1, 41), logs["encoder_output_l1_strength"])
plt.xlabel("epoch")
plt.ylabel("strength that was found")
plt.show()
print(f"mean activation {mean:.3f}")
print("within 0.01 of the target:", abs(mean - 0.15) < 0.01)

# %% [markdown]
# ## 7. Exact zeros, and a smaller model
#
# A gradient makes weights small, and never zero. The optimizer `Proximal` makes them
# zero. With a penalty on whole units, here the columns of the encoder's kernel, whole
# units vanish, and `compact` removes them: the outputs stay as they are.

# %%
whole_units = kp.penalties.Grouped(kp.penalties.L1(0.02), axis=-1)
schedule = keras.optimizers.schedules.CosineDecay(0.01, 1500)
proximal = kp.optimizers.Proximal(
    keras.optimizers.Adam(schedule), {"encoder/kernel": whole_units}
)
keras.utils.set_random_seed(0)
wide = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(64, "relu", use_bias=False, name="encoder"),
        keras.layers.Dense(64, "sigmoid", name="decoder"),
    ]
)
fit(wide, epochs=30, optimizer=proximal)
small = kp.compact(wide)
gap = abs(small.predict(test, verbose=0) - wide.predict(test, verbose=0)).max()

units = [m.get_layer("encoder").units for m in (wide, small)]
weights = [m.count_params() for m in (wide, small)]
print(f"units {units[0]} -> {units[1]}, weights {weights[0]:,} -> {weights[1]:,}")
print(f"variance explained {explained(small):.0%}")
print("fewer units:", units[1] < units[0], "| the same outputs:", bool(gap < 1e-5))

# %% [markdown]
# ## 8. A dictionary
#
# A newer way to a sparse code needs no strength: keep the k largest activations and set
# all others to 0. The rows of the decoder are then a *dictionary*, and each digit is a
# sum of k of them.

# %%
keras.utils.set_random_seed(0)
dictionary = kp.models.TopKAutoencoder(hidden_units=128, k=8)
dictionary.adapt(train)
schedule = keras.optimizers.schedules.CosineDecay(0.01, 60 * 12)
dictionary.compile(keras.optimizers.Adam(schedule), "half_sum_squared_error")
logs = dictionary.fit(train, train, batch_size=125, epochs=60, verbose=0).history
print(f"units in a digit {logs['code_l0'][-1]:.1f}, unused {logs['code_dead'][-1]:.0%}")

eight = PCA(8).fit(train)
rebuilt = eight.inverse_transform(eight.transform(test))
left = np.sum((test - rebuilt) ** 2) / np.sum((test - train.mean(0)) ** 2)
print(f"variance explained {explained(dictionary):.0%}, ", end="")
print(f"by the best eight directions that serve all digits alike {1 - left:.0%}")

# %%
code = keras.ops.convert_to_numpy(dictionary.encode(test[:4]))
images = []
for digit, row in zip(test, code, strict=False):
    images.append(digit)
    for count in range(9):
        first = np.where(row >= np.sort(row)[-count], row, 0) if count else 0 * row
        images += list(keras.ops.convert_to_numpy(dictionary.decode(first[None])))
show(images, 10, "Four digits, and their first 0 to 8 entries added up", signed=False)

# %% [markdown]
# Left the digit. The picture that an empty code gives stands beside it, and each
# picture further right has one entry more, the strongest first.
#
# ## 9. Save, and reload in a fresh process
#
# One file has the layers, the penalties with their strengths, and the optimizer. A new
# process needs one import before it loads the file.

# %%
folder = Path(tempfile.mkdtemp())
sparse.save(folder / "sparse.keras")
np.save(folder / "test.npy", test)
program = f"""
import keras
import keras_penalties
import numpy as np

model = keras.saving.load_model(r"{folder / "sparse.keras"}")
test = np.load(r"{folder / "test.npy"}")
np.save(r"{folder / "there.npy"}", model.predict(test, verbose=0))
print(keras_penalties.terms(model))
"""
done = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=True
)
print(done.stdout)
here, there = sparse.predict(test, verbose=0), np.load(folder / "there.npy")
print(f"largest difference {abs(here - there).max():g}")

# %% [markdown]
# ## Exercises
#
# 1. Start the hidden biases of part 4 at 0 (`bias_initializer="zeros"`) and train with
#    `"kl_sparsity(3.0, rate=0.1)"` only. Compare the loss of the first epochs and of
#    the last one with those of a start at `rate`.
# 2. In part 7 put `"l1(0.002)"` in place of `whole_units`. Print `kp.sparsity(wide)`:
#    where are the zeros now, and why does `compact` remove fewer units?
# 3. Plot the explained variance in part 8 against k = 1, 2, 4, 8, 16.
# 4. Write a penalty of your own on the code and use it in part 4. The page
#    *Contributing* of the documentation shows a complete one.
