"""What a layer of a trained model gives out, as batches to train on."""

from keras_penalties.activations.of_layer import activations
from keras_penalties.activations.stream import ActivationStream

__all__ = ["ActivationStream", "activations"]
