"""Precision: what `auto` takes where, and that weights stay float32."""

from dataclasses import replace

import numpy as np
import pytest

from model import build_network
from nerve import precision
from nerve.backend import computing_in, keras
from recipes import CLASSIC


def choose(monkeypatch, devices, flags=(), capability=None):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: devices)
    monkeypatch.setattr(precision, "cpu_flags", lambda: set(flags))
    monkeypatch.setattr(precision, "gpu_capability", lambda: capability)
    return precision.choose_precision("auto")


@pytest.mark.parametrize(
    ("devices", "flags", "capability", "expected", "why"),
    [
        (["cpu:0"], ["avx2"], None, "float32", "processor has no bfloat16"),
        (["cpu:0"], ["avx2", "avx512_bf16"], None, "bfloat16", "avx512_bf16"),
        (["cpu:0"], ["amx_bf16"], None, "bfloat16", "amx_bf16"),
        (["gpu:0"], [], 8.0, "bfloat16", "compute capability 8.0"),
        # the processor's features do not matter beside a GPU
        (["gpu:0"], ["amx_bf16"], 7.5, "float32", "GPU is not known"),
        (["gpu:0"], [], None, "float32", "GPU is not known"),
        (["tpu:0"], [], None, "bfloat16", "TPU"),
    ],
)
def test_auto_takes_bfloat16_where_the_machine_has_it(
    monkeypatch, devices, flags, capability, expected, why
):
    found, reason = choose(monkeypatch, devices, flags, capability)
    assert found == expected
    assert why in reason


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("AVX2", "float32"),
        ("avx512_core_vnni", "float32"),
        ("AVX512_CORE_BF16", "bfloat16"),
    ],
)
def test_kernels_held_to_less_than_the_processor_has_decide(monkeypatch, limit, expected):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert choose(monkeypatch, ["cpu:0"], ["avx2", "avx512_bf16"])[0] == expected
    if expected == "float32":
        said = f"held to {limit.upper()} by ONEDNN_MAX_CPU_ISA; unset that"
        with pytest.raises(ValueError, match=said):
            precision.choose_precision("bfloat16")
    else:
        assert precision.choose_precision("bfloat16")[0] == "bfloat16"


def test_what_is_asked_for_is_taken():
    assert precision.choose_precision("float16") == ("float16", "as asked, on cpu:0")


@pytest.mark.parametrize("network", ["unet", "fast_unet"])
@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_weights_and_probabilities_are_float32_in_every_precision(network, name):
    policy = precision.dtype_policy(name)
    recipe = replace(CLASSIC, network=network, filters=2, depth=2)
    with computing_in(policy):
        model = build_network(recipe, 16, 16)
    assert keras.config.dtype_policy().name == "float32"  # as before
    assert {np.asarray(w).dtype for w in model.weights} == {np.dtype("float32")}
    output = model(np.zeros((1, 16, 16, 1), np.float32))
    assert keras.backend.standardize_dtype(output.dtype) == "float32"
    computed = {layer.compute_dtype for layer in model.layers[1:-1]}
    assert computed == {name}
