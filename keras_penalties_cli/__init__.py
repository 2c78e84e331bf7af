"""The command line, in a package of its own: it starts no Keras and no backend.

`import keras_penalties` imports Keras, and Keras starts a backend: that takes seconds
and prints notes, for commands that need neither. Only `keras-penalties demo` does it.
"""
