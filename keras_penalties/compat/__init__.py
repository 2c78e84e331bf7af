"""What is private in Keras, or replaced in Keras: nothing else imports `keras.src`.

Each module has one topic. Its docstring says what is private and why, which public way
there is, and which test of `tests/test_needless.py` fails once Keras makes the module
needless. A part that a version of Keras lacks costs the feature that needs the part,
with an error where the feature is used: see `private`.
"""

from keras_penalties.compat.derivatives import differentiable
from keras_penalties.compat.distribution import (
    replica_share,
    replicated,
    undistributed,
)
from keras_penalties.compat.graphs import (
    calls,
    first_argument,
    functional,
    graph,
    has_graph,
    layers_before,
    origin,
)
from keras_penalties.compat.layers import (
    flat_layers,
    inner_layers,
    own_trained_weights,
    own_weights,
)
from keras_penalties.compat.ledger import LossLedger, in_stateless_scope
from keras_penalties.compat.loops import enclosing_loop
from keras_penalties.compat.losses import (
    compiled_losses,
    loss_arguments,
    loss_function,
    loss_name,
    own_losses,
    slot_divides,
)
from keras_penalties.compat.masks import carry_mask, keras_mask
from keras_penalties.compat.names import add_string_names, string_names
from keras_penalties.compat.optimizers import (
    around_update,
    decayed,
    flat_optimizers,
    index_of,
    optimizer_state,
    portable_optimizer,
)
from keras_penalties.compat.precision import full_precision
from keras_penalties.compat.trainer import (
    compile_arguments,
    in_training,
    loses_optimizer,
    losses_wanted,
    sync_state,
)

__all__ = [
    "LossLedger",
    "add_string_names",
    "around_update",
    "calls",
    "carry_mask",
    "compile_arguments",
    "compiled_losses",
    "decayed",
    "differentiable",
    "enclosing_loop",
    "first_argument",
    "flat_layers",
    "flat_optimizers",
    "full_precision",
    "functional",
    "graph",
    "has_graph",
    "in_stateless_scope",
    "in_training",
    "index_of",
    "inner_layers",
    "keras_mask",
    "layers_before",
    "loss_arguments",
    "loss_function",
    "loss_name",
    "loses_optimizer",
    "losses_wanted",
    "optimizer_state",
    "origin",
    "own_losses",
    "own_trained_weights",
    "own_weights",
    "portable_optimizer",
    "replica_share",
    "replicated",
    "slot_divides",
    "string_names",
    "sync_state",
    "undistributed",
]
