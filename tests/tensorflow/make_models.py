"""Makes the models that the tests build: run by the Python of TensorFlow's environment, in the folder where they go.

digits.npz holds the bundled handwritten digits. It imports nothing of the project.
"""

from __future__ import annotations

import os
from typing import Any

os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}

import keras
import numpy as np
import tensorflow as tf


def digits() -> None:
    """A small convolutional network, trained a little: digits.keras, and saved/ with the same."""
    data = np.load("digits.npz")
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    hidden = keras.layers.Conv2D(16, 3, activation="relu")(image)
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Flatten()(keras.layers.MaxPooling2D()(hidden))
    model = keras.Model(image, keras.layers.Dense(10, activation="softmax", name="probabilities")(hidden))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(data["image"][:1200], data["digit"][:1200], epochs=20, batch_size=32, verbose=0)
    model.save("digits.keras")
    model.export("digits", verbose=False)


class Scores(tf.Module):
    """Two signatures, and a weight that versions differ in."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.weights = tf.Variable(scale * tf.reshape(tf.range(12, dtype=tf.float32), (4, 3)) - 3.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="rows")])
    def scores(self, rows: Any) -> Any:
        return {"scores": rows @ self.weights, "best": tf.argmax(rows @ self.weights, -1)}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.float32, name="left"),
            tf.TensorSpec([None, None], tf.float32, name="right"),
        ]
    )
    def add(self, left: Any, right: Any) -> Any:
        return {"sum": left + right}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="rows")])
    def bessel(self, rows: Any) -> Any:
        return {"i0": tf.raw_ops.BesselI0(x=rows), "j0": tf.raw_ops.BesselJ0(x=rows)}


class Words(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        words = tf.lookup.KeyValueTensorInitializer(tf.constant(["cat", "dog"]), tf.constant([1, 2], tf.int64))
        self.table = tf.lookup.StaticHashTable(words, -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def ids(self, word: Any) -> Any:
        return {"id": self.table.lookup(word)}


class Own(keras.layers.Layer):
    def call(self, given: Any) -> Any:
        return given + 1


def main() -> None:
    digits()
    one = Scores(1.0)
    tf.saved_model.save(one, "two", signatures={"add": one.add, "scores": one.scores})
    tf.saved_model.save(one, "bessel", signatures=one.bessel)
    for number, scale in ((3, 1.0), (12, 2.0)):
        module = Scores(scale)
        tf.saved_model.save(module, f"served/{number}", signatures=module.scores)
    words = Words()
    tf.saved_model.save(words, "words", signatures=words.ids)
    given = keras.Input((4,), name="rows")
    keras.Model(given, keras.layers.Lambda(lambda rows: rows * 2, name="twice")(given)).save("lambda.keras")
    keras.Model(given, Own(name="own")(given)).save("own.keras")


if __name__ == "__main__":
    main()
