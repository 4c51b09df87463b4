"""A network written for other engines; needs: pip install -r requirements/export.txt."""

import logging
import os
from pathlib import Path

import numpy as np

from nerve.backend import keras, ops
from nerve.files import atomic
from nerve.prediction import engines

GroupNormalization = keras.layers.GroupNormalization


class FusedNormalization(GroupNormalization):
    """Normalisation of each channel, or of all together, as other engines know it.

    OpenVINO makes one operation of it; Keras's own, in parts of five axes, takes two
    thirds of a frame's time there.

    Source: https://docs.openvino.ai, operation MVN.
    """

    def call(self, inputs):
        """Return float32 `(batch, height, width, channels)` normalised."""
        axes = (1, 2, 3) if self.groups == 1 else (1, 2)
        centred = inputs - ops.mean(inputs, axes, keepdims=True)
        variance = ops.mean(ops.square(centred), axes, keepdims=True)
        x = centred / ops.sqrt(variance + self.epsilon)
        x = x if self.gamma is None else x * self.gamma
        return x if self.beta is None else x + self.beta


def with_fused_normalization(model: keras.Model) -> keras.Model:
    """Return a network of the same results, in what other engines compute fast."""

    def clone(layer):
        kind = type(layer)
        if kind is GroupNormalization and layer.groups in (1, layer.input.shape[-1]):
            kind = FusedNormalization
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def write_openvino_int8(path: Path, source: Path, frames: np.ndarray) -> None:
    """Write OpenVINO's network `source` with 8-bit convolutions, calibrated on frames."""
    os.environ.setdefault("NNCF_CI", "1")  # else it reports its use to its makers
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    network = openvino.Core().read_model(source)
    dataset = nncf.Dataset([frame[np.newaxis] for frame in frames])
    how = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(frames)}
    openvino.save_model(nncf.quantize(network, dataset, **how), path)


def write_litert(path: Path, saved: Path, frames: np.ndarray | None) -> None:
    """Write a SavedModel for LiteRT, in 8 bits where there are frames to calibrate on."""
    import tensorflow

    converter = tensorflow.lite.TFLiteConverter.from_saved_model(str(saved))
    if frames is not None:
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        batches = [[frame[np.newaxis]] for frame in frames]
        converter.representative_dataset = lambda: batches
    path.write_bytes(converter.convert())


def export_all(model: keras.Model, weights: Path, folder: Path, frames: np.ndarray) -> None:
    """Write a network in all forms into a folder, called after its weights.

    On the frames, float32 `(N, height, width, 1)`, both of 8 bits are calibrated.
    """

    def path(engine):
        return folder / engines.exported(weights, engine).name

    model, saved = with_fused_normalization(model), folder / "saved"
    model.predict_on_batch(frames[:1])  # the ONNX export wants a call before
    for engine in ("onnx", "openvino"):
        model.export(str(path(engine)), format=engine, verbose=False)
    write_openvino_int8(path("openvino-int8"), path("openvino"), frames)
    model.export(str(saved), format="tf_saved_model", verbose=False)
    write_litert(path("litert"), saved, None)
    write_litert(path("litert-int8"), saved, frames)
    atomic.remove(saved)
