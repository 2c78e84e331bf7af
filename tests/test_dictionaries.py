"""Dictionary autoencoders: their objectives, their files, and SAELens' own answers."""

import importlib.util
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import keras_penalties as kp

DATA = Path(__file__).parent / "data" / "saelens"
WRITTEN = sorted(p.name for p in DATA.iterdir() if (p / "cfg.json").exists())
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype("float32")
MODELS = {
    "relu": lambda: kp.models.ReLUAutoencoder(10, "l1(0.3)", seed=1),
    "relu_unit": lambda: kp.models.ReLUAutoencoder(10, "l1(0.3)", True, seed=1),
    "top_k": lambda: kp.models.TopKAutoencoder(10, 3, dead_after=1, seed=1),
    "batch_top_k": lambda: kp.models.BatchTopKAutoencoder(10, 2.5, aux=0.5, seed=1),
    "matryoshka": lambda: kp.models.MatryoshkaAutoencoder(10, 3, [2, 5], seed=1),
    "jump_relu": lambda: kp.models.JumpReLUAutoencoder(10, 0.2, seed=1),
    "gated": lambda: kp.models.GatedAutoencoder(10, "l1(0.3)", seed=1),
}
SLOW = {"relu", "relu_unit", "batch_top_k", "jump_relu"}  # the others have their parts
NAMES = [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in MODELS]


def array(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


def trained(make, **options):
    model = make()
    model.adapt(2.0 * X)
    model.compile(keras.optimizers.Adam(0.01), "half_sum_squared_error", **options)
    model.fit(2.0 * X, 2.0 * X, epochs=3, batch_size=20, verbose=0)
    return model


def parts_of(model, x):
    """What each architecture computes, by the papers' formulas, in NumPy."""
    scale, (kernel, *biases) = (
        array(model.input_scale),
        map(array, model.encoder.weights),
    )
    bias, directions = array(model.decoder.bias), array(model.dictionary)
    x = x * scale
    shared, sizes = (x - bias) @ kernel, np.linalg.norm(directions, axis=1)
    match type(model).__name__:
        case "ReLUAutoencoder":
            code = np.maximum(shared + biases[0], 0)
            costs = 0.3 * (code * sizes).sum(1).mean()
        case "TopKAutoencoder":
            pre = shared + biases[0]
            code = np.where(pre >= np.sort(pre)[:, -model.k, None], pre, 0).clip(0)
            costs = 0.0
        case "JumpReLUAutoencoder":
            pre = shared + biases[0]
            code = np.where(pre > array(model.activation.threshold), pre, 0)
            costs = 0.2 * (code > 0).sum(1).mean()
        case "GatedAutoencoder":
            gate = np.maximum(shared + biases[0], 0)
            code = (gate > 0) * np.maximum(shared * np.exp(biases[2]) + biases[1], 0)
            alone = gate @ directions + bias
            costs = 0.3 * (gate * sizes).sum(1).mean()
            costs += 0.5 * ((x - alone) ** 2).sum(1).mean()
        case _:
            pre = shared + biases[0]
            code = np.where(pre > float(model.activation.threshold), pre, 0)
            costs = 0.0
            for width in getattr(model, "widths", ()):
                found = code[:, :width] @ directions[:width] + bias
                costs += 0.5 * ((x - found) ** 2).sum(1).mean()
    output = code @ directions + bias
    loss = 0.5 * ((x - output) ** 2).sum(1).mean()
    return code, output / scale, loss + costs


@pytest.mark.parametrize("name", NAMES)
def test_the_objective_is_the_papers(name):
    model = trained(MODELS[name])
    if name == "top_k":
        model.dead_units.silent.assign(np.zeros(10))
    code, output, total = parts_of(model, 2.0 * X)
    np.testing.assert_allclose(array(model.encode(2.0 * X)), code, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(array(model(2.0 * X)), output, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(array(model.decode(code)), output, rtol=1e-4, atol=1e-5)
    found = model.evaluate(2.0 * X, 2.0 * X, batch_size=40, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(total, rel=1e-4)
    assert found["code_l0"] == pytest.approx((code != 0).sum(1).mean(), rel=1e-5)
    assert found["code_dead"] == pytest.approx((code == 0).all(0).mean(), abs=1e-6)


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.parametrize("name", MODELS)
def test_training_learns(name):
    model = MODELS[name]()
    model.compile(keras.optimizers.Adam(0.01), "half_sum_squared_error")
    often = np.tile(X, (25, 1))  # an epoch takes longer to start than its steps take
    losses = model.fit(often, often, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["top_k", "jump_relu", "gated"])
def test_mixed_precision(name):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = trained(MODELS[name])
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.encoder.weights[0].dtype == "float32"
    assert keras.backend.standardize_dtype(model.encode(X).dtype) == "bfloat16"
    assert np.isfinite(array(model(X))).all()


def test_the_start_is_tied_and_repeats():
    one, two = MODELS["top_k"](), MODELS["top_k"]()
    for model in (one, two):
        model.build((None, 6))
    kernel = array(one.encoder.kernel)
    np.testing.assert_allclose(kernel.T, array(one.dictionary), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(kernel, array(two.encoder.kernel))
    other = kp.models.TopKAutoencoder(10, 3)
    other.build((None, 6))
    assert np.abs(array(other.encoder.kernel) - kernel).max() > 0.1


def test_one_strength_serves_all_scales():
    found = []
    for scale in (1.0, 1000.0):
        model = MODELS["relu"]()
        model.adapt(scale * X)
        model.compile(keras.optimizers.SGD(0.01), "half_sum_squared_error")
        x = scale * X
        model.fit(x, x, epochs=3, shuffle=False, verbose=0)
        found.append([array(model(x)) / scale, array(model.encode(x))])
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


def test_a_stream_is_read_for_the_scale():
    inputs = keras.Input((6,))
    network = keras.Model(inputs, keras.layers.Identity(name="here")(inputs))
    from_rows, from_stream = MODELS["top_k"](), MODELS["top_k"]()
    from_rows.adapt(X)
    from_stream.adapt(kp.activations(network, "here", X, batch_size=8))
    for one, two in zip(from_rows.weights, from_stream.weights, strict=True):
        np.testing.assert_allclose(array(one), array(two), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias_unit", [False, True])
def test_the_dictionary_of_ngs_autoencoder(bias_unit):
    model = kp.models.SparseAutoencoder(9, bias_unit=bias_unit)
    model.build((None, 6))
    assert tuple(model.dictionary.shape) == (9, 6)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: kp.models.TopKAutoencoder(4, 5), "k"),
        (lambda: kp.models.BatchTopKAutoencoder(4, 0.0), "k"),
        (lambda: kp.models.MatryoshkaAutoencoder(4, 2, [3, 2]), "widths"),
        (lambda: kp.models.MatryoshkaAutoencoder(4, 2, [4]), "widths"),
        (lambda: kp.models.JumpReLUAutoencoder(4, bandwidth=0.0), "bandwidth"),
        (lambda: kp.models.ReLUAutoencoder(4, "no_such(1.0)"), "no_such"),
        (lambda: kp.models.GatedAutoencoder(4).adapt(np.zeros((3, 2))), "data"),
        (lambda: kp.models.GatedAutoencoder(4).build((None, 3, 2)), "input_shape"),
        (lambda: kp.models.GatedAutoencoder(4).to_saelens("x"), "built"),
    ],
)
def test_bad_arguments_are_refused(make, name):
    with pytest.raises(ValueError, match=name):
        make()


@pytest.mark.parametrize("name", WRITTEN)
def test_what_saelens_wrote_gives_what_saelens_gives(name):
    answer = np.load(DATA / name / "answer.npz")
    model = kp.models.from_saelens(DATA / name)
    code, output = model.encode(answer["x"]), model(answer["x"])
    np.testing.assert_allclose(array(code), answer["code"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(array(output), answer["output"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_comes_back_from_saelens_folder(name, tmp_path):
    model = trained(MODELS[name])
    model.to_saelens(tmp_path / "sae")
    again = kp.models.from_saelens(tmp_path / "sae")
    np.testing.assert_allclose(array(again(X)), array(model(X)), rtol=1e-4, atol=1e-5)
    code = array(model.encode(X))
    np.testing.assert_allclose(array(again.encode(X)), code, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_saelens_reads_what_we_wrote(name, tmp_path):
    if importlib.util.find_spec("sae_lens") is None:
        pytest.skip("needs `pip install sae-lens`")
    import torch
    from sae_lens import SAE

    model = trained(MODELS[name])
    model.to_saelens(tmp_path)
    with torch.no_grad():
        sae = SAE.load_from_disk(tmp_path)
        code = sae.encode(torch.tensor(X))
        output = sae.decode(code)
    np.testing.assert_allclose(array(model.encode(X)), code, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(array(model(X)), output, rtol=1e-4, atol=1e-5)


def test_files_that_can_not_be_read_are_refused(tmp_path):
    from safetensors.numpy import load_file, save_file

    def changed(**changes):
        shutil.rmtree(tmp_path / "sae", ignore_errors=True)
        shutil.copytree(DATA / "standard", tmp_path / "sae")
        config = json.loads((tmp_path / "sae/cfg.json").read_text())
        (tmp_path / "sae/cfg.json").write_text(json.dumps({**config, **changes}))
        return tmp_path / "sae"

    for changes, words in (
        ({"architecture": "transcoder"}, "standard.*topk.*jumprelu.*gated"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations"),
        ({"reshape_activations": "hook_z"}, "reshape_activations"),
        ({"metadata": {"sae_lens_version": "5.9.1"}}, "SAELens 6"),
        ({"d_sae": 10}, r"W_dec of shape \(10, 5\)"),
        ({"architecture": "jumprelu"}, "threshold"),
    ):
        with pytest.raises(ValueError, match=f"(?s)`folder`.*{words}"):
            kp.models.from_saelens(changed(**changes))
    folder = changed()
    weights = load_file(folder / "sae_weights.safetensors")
    save_file(
        {**weights, "b_dec": weights["b_enc"]}, folder / "sae_weights.safetensors"
    )
    with pytest.raises(ValueError, match="b_dec"):
        kp.models.from_saelens(folder)
    for damaged in (b"", b"{}", b"\xff" * 100):
        (folder / "sae_weights.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match="folder"):
            kp.models.from_saelens(folder)
    for text in ("", "[]", "null", "{"):
        (changed() / "cfg.json").write_text(text)
        with pytest.raises(ValueError, match="folder"):
            kp.models.from_saelens(tmp_path / "sae")
    with pytest.raises(ValueError, match=r"cfg\.json"):
        kp.models.from_saelens(tmp_path / "nowhere")
