"""TensorFlow with tf2onnx, which reads SavedModels and Keras files: its pins clash with those of this project."""

from __future__ import annotations

from modelwright.environments.own import WantedEnvironment

# Tried together. Keras 3.12 and numpy 2.2 are the last that Python 3.10 has; tf-keras reads what Keras 2 wrote.
_PINS = (
    "absl-py==2.5.1",
    "astunparse==1.6.3",
    "certifi==2026.10.19.post1",
    "charset-normalizer==3.5.3",
    "flatbuffers==25.12.19",
    "gast==0.7.0",
    "google-pasta==0.2.0",
    "grpcio==1.85.3",
    "h5py==3.14.0",
    "idna==3.20",
    "keras==3.12.4",
    "markdown-it-py==4.3.0",
    "mdurl==0.1.2",
    "ml-dtypes==0.6.0",
    "namex==0.1.0",
    "numpy==2.2.6",
    "onnx==1.23.2",
    "opt-einsum==3.4.0",
    "optree==0.20.0",
    "packaging==26.4",
    "protobuf==7.36.2",
    "pygments==2.21.0",
    "requests==2.34.2",
    "rich==15.0.0",
    "setuptools==84.2.1",
    "six==1.17.0",
    "tensorflow-cpu==2.21.0",
    "termcolor==3.3.0",
    "tf-keras==2.21.0",
    "tf2onnx==1.17.0",
    "typing-extensions==4.16.0",
    "urllib3==2.8.0",
    "wrapt==2.5.2",
)

TENSORFLOW = WantedEnvironment(
    name="tensorflow",
    title="TensorFlow",
    pins=_PINS,
    minors=range(10, 14),
    size="a download of 330 MB, 1.2 GB on disk",
    trial="import os; os.environ.update(CUDA_VISIBLE_DEVICES='-1', TF_CPP_MIN_LOG_LEVEL='3');"
    " import keras, onnx, tensorflow, tf2onnx, tf_keras",
    unneeded=("tensorflow/include", "tensorflow/lite/python/examples"),
)
MAX_OPSET = 18  # that this tf2onnx writes
