"""Keras models for pruning: one for each kind of layer and coupling, and random ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

Tensor = Any  # a symbolic tensor of Keras


def grouped() -> keras.Model:
    """Grouped convolutions with several and with one channel a group, depthwise, separable and transposed."""
    image = keras.Input((12, 12, 3))
    x = layers.Conv2D(16, 3, activation="relu", name="stem")(image)
    x = layers.Conv2D(24, 3, groups=4, activation="relu", name="groups")(x)
    x = layers.BatchNormalization()(layers.Conv2D(24, 3, groups=24, name="ones")(x))
    x = layers.Conv2D(48, 3, groups=24, padding="same", name="multiplied")(x)
    x = layers.PReLU(shared_axes=[1, 2])(layers.DepthwiseConv2D(3, depth_multiplier=2)(x))
    x = layers.Conv2DTranspose(8, 2, 2, name="up")(layers.SeparableConv2D(12, 1, name="separable")(x))
    return keras.Model(image, layers.Dense(5, name="out")(layers.Flatten()(x)))


def shared() -> keras.Model:
    """Two inputs through the same layers, two outputs by name."""
    one, other = keras.Input((8, 8, 3), name="one"), keras.Input((8, 8, 3), name="other")
    first, second = layers.Conv2D(8, 3, activation="relu", name="first"), layers.Conv2D(12, 3, name="second")
    spatial, norm = layers.DepthwiseConv2D(3), layers.BatchNormalization()
    x, y = (spatial(norm(second(first(each)))) for each in (one, other))
    joined = layers.Conv2D(8, 1, activation="relu", name="joined")(layers.Concatenate()([x, y]))
    far = ops.abs(x - y)
    outputs = {
        "classes": layers.Dense(5, name="classes")(layers.Flatten()(joined)),
        "distance": layers.Dense(1, name="distance")(layers.Flatten()(far)),
    }
    return keras.Model([one, other], outputs)


def nested() -> keras.Model:
    """A model used twice as a layer of another one, and one that makes the output."""
    base = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, activation="relu", name="a"),
            layers.Conv2D(8, 3, name="b"),
        ],
        name="base",
    )
    head = keras.Sequential([layers.Dense(8, activation="relu", name="a"), layers.Dense(3)], name="head")
    one, other = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    return keras.Model([one, other], head(layers.Flatten()(layers.Add()([base(one), base(other)]))))


def shuffled() -> keras.Model:
    """Channels that are split, joined and shuffled, with a squeeze and excitation."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, activation="relu", padding="same", name="stem")(image)
    left, right = ops.split(x, 2, axis=-1)
    right = layers.Conv2D(8, 1, name="right")(layers.DepthwiseConv2D(3, padding="same")(right))
    x = layers.Concatenate()([left, right])
    x = layers.Reshape((8, 8, 2, 8))(x)
    x = layers.Reshape((8, 8, 16))(layers.Permute((1, 2, 4, 3))(x))
    s = layers.Conv2D(4, 1, activation="relu", name="squeeze")(
        layers.GlobalAveragePooling2D(keepdims=True)(x)
    )
    x = layers.Multiply()([x, layers.Conv2D(16, 1, activation="sigmoid", name="excite")(s)])
    gated = layers.Dense(12, name="gated")(layers.GlobalMaxPooling2D()(x * 2.0 + 1.0))
    gated = gated[..., :6] * ops.sigmoid(gated[..., 6:])
    return keras.Model(image, layers.Dense(5, name="out")(gated))


def transformer() -> keras.Model:
    """A small vision transformer, as Keras' own examples have it."""
    image = keras.Input((16, 16, 1), name="image")
    x = layers.Reshape((16, 24))(layers.Conv2D(24, 4, 4, name="patches")(image))
    for number in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 6, name=f"attention{number}")(y, y)])
        y = layers.Dense(48, activation="gelu", name=f"widen{number}")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(24, name=f"narrow{number}")(y)])
    return keras.Model(image, layers.Dense(10, name="out")(layers.GlobalAveragePooling1D()(x)))


def attention_by_hand() -> keras.Model:
    """Attention of dense layers, a fused projection, einsums, shared keys; without layer normalization."""
    x = tokens = keras.Input((12, 16))
    x = layers.Dense(16, name="first")(x)

    def heads(name: str) -> Tensor:
        return layers.Permute((2, 1, 3))(layers.Reshape((12, 4, 4))(layers.Dense(16, name=name)(x)))

    q, k, v = heads("q"), heads("k"), heads("v")
    scores = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) * 0.5)
    x = x + layers.Reshape((12, 16))(layers.Permute((2, 1, 3))(ops.matmul(scores, v)))
    fused = ops.transpose(ops.reshape(layers.Dense(48, name="fused")(x), (-1, 12, 3, 4, 4)), (0, 2, 3, 1, 4))
    q, k, v = fused[:, 0], fused[:, 1], fused[:, 2]
    scores = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) * 0.5)
    x = layers.Reshape((12, 16))(layers.Permute((2, 1, 3))(ops.matmul(scores, v)))
    q, k, v = (
        layers.EinsumDense("abc,cde->abde", output_shape=(None, 4, 4), bias_axes="de", name=f"einsum_{each}")(
            x
        )
        for each in "qkv"
    )
    x = ops.einsum("ahbc,achd->abhd", ops.softmax(ops.einsum("abhd,achd->ahbc", q, k)), v)
    x = layers.EinsumDense("abhd,hde->abe", output_shape=(None, 16), bias_axes="e", name="einsum_out")(x)
    x = x + layers.GroupQueryAttention(4, 4, 2, name="grouped")(x, x)
    y, scores = layers.MultiHeadAttention(4, 4, value_dim=3, name="scored")(
        x, x, return_attention_scores=True
    )
    x = layers.BatchNormalization()(x + y)
    return keras.Model(tokens, layers.Dense(5, name="out")(layers.Attention()([x, x])))


def recurrent() -> keras.Model:
    """An embedding, a convolution and recurrent layers, one of which starts from the state of another."""
    words = keras.Input((8,), dtype="int32")
    x = layers.Embedding(20, 12, name="embedding")(words)
    x = layers.Conv1D(16, 3, activation="relu", name="conv")(x)
    x = layers.LSTM(8, return_sequences=True, name="lstm")(x)
    x, state = layers.GRU(8, return_state=True, return_sequences=True, name="gru")(x)
    x = layers.SimpleRNN(6, name="simple")(x, initial_state=layers.Dense(6, name="start")(state))
    return keras.Model(words, layers.Dense(3, name="out")(x))


def wrapped() -> keras.Model:
    """Layers in TimeDistributed and Bidirectional, and a stack."""
    frames = keras.Input((5, 6, 6, 3))
    x = layers.TimeDistributed(layers.Conv2D(8, 3, activation="relu"), name="frames")(frames)
    x = layers.TimeDistributed(layers.BatchNormalization())(x)
    x = layers.TimeDistributed(layers.DepthwiseConv2D(2), name="each")(x)
    x = layers.TimeDistributed(layers.Flatten())(x)
    x = layers.TimeDistributed(layers.Dense(12, activation="relu"), name="steps")(x)
    x = layers.Bidirectional(layers.LSTM(6, return_sequences=True), name="joined")(x)
    x = layers.Bidirectional(
        layers.GRU(8, return_sequences=True, return_state=True), merge_mode="sum", name="summed"
    )(x)
    x, *states = x
    y = layers.Bidirectional(layers.GRU(8), merge_mode=None, name="apart")(x, initial_state=states)
    x = ops.stack([layers.Dense(6, name="one")(y[0]), layers.Dense(6, name="other")(y[1])], axis=1)
    return keras.Model(frames, layers.Dense(3, name="out")(layers.GlobalMaxPooling1D()(x)))


def unprunable() -> keras.Model:
    """Layers through which channels cannot be followed, between layers that can be pruned."""
    image = keras.Input((8, 8, 3))
    x = layers.GroupNormalization(4)(layers.Conv2D(8, 3, name="normalized")(image))
    x = layers.Conv2D(8, 3, name="scaled")(x) * np.arange(1.0, 9.0).astype(np.float32)
    x = layers.Conv2D(6, 1, activation="softmax", name="softmax")(x)
    x = layers.Reshape((16, 6))(layers.Conv2D(6, 1, name="rows")(x))
    x = layers.ConvLSTM1D(4, 2, name="both")(layers.Reshape((4, 4, 6))(x))
    x = layers.TimeDistributed(layers.ConvLSTM1D(2, 2), name="each")(layers.Reshape((2, 1, 3, 2))(x))
    x = layers.Flatten()(x)
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="out")(x))


MODELS: dict[str, Callable[[], keras.Model]] = {
    each.__name__: each
    for each in (
        transformer, grouped, shared, nested, shuffled, attention_by_hand, recurrent, wrapped, unprunable,
    )
}  # fmt: skip


def random_model(seed: int) -> keras.Model:
    """Return a random graph of layers over images of 6x6; shapes decide what is joined."""
    random = np.random.default_rng(seed)
    inputs = [keras.Input((6, 6, 4)) for _ in range(int(random.integers(1, 3)))]
    at: list[Tensor] = [layers.Conv2D(8, 1)(each) for each in inputs]
    known: list[keras.Layer] = []
    for _ in range(int(random.integers(5, 12))):
        x = at[int(random.integers(len(at)))]
        same = [each for each in at if each.shape == x.shape]
        choices = _choices(x, same[int(random.integers(len(same)))], at[0], known, random)
        y = choices[int(random.integers(len(choices)))]()
        maker = y._keras_history.operation  # noqa: SLF001
        if isinstance(maker, layers.Layer) and maker.weights and tuple(maker.input.shape[1:]) == (6, 6, 8):
            known.append(maker)
        if int(y.shape[-1]) <= 48:
            at.append(y)
    ends = [at[-1], at[int(random.integers(len(at)))]][: int(random.integers(1, 3))]
    outputs = [
        layers.Dense(3)(layers.Flatten()(end)) if random.random() < 0.7 else layers.GlobalMaxPooling2D()(end)
        for end in ends
    ]
    return keras.Model(inputs, outputs)


def _choices(
    x: Tensor, other: Tensor, first: Tensor, known: list[keras.Layer], random: np.random.Generator
) -> list[Callable[[], Tensor]]:
    """Return what may be done with a tensor; `other` has its shape, and `known` layers read 8 channels."""
    width = int(x.shape[-1])
    even = width % 4 == 0
    activation = str(random.choice(["linear", "relu", "sigmoid", "gelu", "tanh"]))
    return [
        lambda: layers.Conv2D(8, 3, padding="same", activation=activation)(x),
        lambda: layers.Conv2D(16, 1, groups=4 if even else 1, activation=activation)(x),
        lambda: layers.Conv2D(width, 3, groups=width, padding="same")(x),
        lambda: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation=activation)(x),
        lambda: layers.SeparableConv2D(8, 3, padding="same", activation=activation)(x),
        lambda: layers.Conv2DTranspose(8, 3, padding="same")(x),
        lambda: layers.Dense(8, activation=activation)(x),
        lambda: layers.BatchNormalization()(x),
        lambda: layers.PReLU()(x),
        lambda: layers.LayerNormalization()(x),
        lambda: layers.GroupNormalization(-1)(x),
        lambda: layers.Add()([x, other]),
        lambda: layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(other)]),
        lambda: ops.maximum(x, other) - 0.5,
        lambda: layers.Concatenate()([x, first]),
        lambda: layers.Concatenate(axis=1)([x[:, :3], other[:, 3:]]),
        lambda: layers.Permute((1, 3, 2))(layers.Dense(6)(layers.Permute((1, 3, 2))(x))),
        lambda: ops.concatenate(ops.split(x, 2, axis=-1)[::-1], axis=-1) if even else x,
        lambda: _attended(x, other),
        lambda: x[..., : width // 2],
        lambda: layers.TimeDistributed(layers.Conv1D(8, 3, padding="same", activation=activation))(x),
        lambda: _both_ways(x, activation),
        lambda: ops.mean(ops.stack([x, other], axis=2), axis=2),
        lambda: known[int(random.integers(len(known)))](x) if known and width == 8 else x,
    ]


def _attended(x: Tensor, other: Tensor) -> Tensor:
    width = int(x.shape[-1])
    rows = [layers.Reshape((36, width))(each) for each in (x, other)]
    return layers.Reshape((6, 6, width))(layers.MultiHeadAttention(2, 3)(*rows))


def _both_ways(x: Tensor, activation: str) -> Tensor:
    rows = layers.Reshape((36, int(x.shape[-1])))(x)
    merge = "mul" if activation == "relu" else "concat"
    made = layers.Bidirectional(layers.SimpleRNN(4, return_sequences=True), merge_mode=merge)(rows)
    return layers.Reshape((6, 6, int(made.shape[-1])))(made)


def with_random_weights(model: keras.Model, seed: int) -> keras.Model:
    """Set every weight to random values, variances to positive ones."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        values = random.normal(0, 0.5, weight.shape).astype(np.float32)
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    return model


def samples_of(model: keras.Model, seed: int, count: int = 4) -> list[np.ndarray]:
    """Return random samples of every input."""
    random = np.random.default_rng(seed)
    return [
        random.normal(size=(count, *each.shape[1:])).astype(np.float32)
        if each.dtype == "float32"
        else random.integers(0, 20, (count, *each.shape[1:])).astype(each.dtype)
        for each in model.inputs
    ]
