"""What Keras will refuse, lose or ignore when it loads a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from keras_penalties_cli import catalogue
from keras_penalties_cli.inspection.archive import SavedModel
from keras_penalties_cli.inspection.objective import compiled, data_losses
from keras_penalties_cli.inspection.saved import OURS, Json, Saved, word

_LOST = {
    "Huber": ("delta", "1"),
    "CosineSimilarity": ("axis", "-1"),
    "SparseCategoricalCrossentropy": ("axis", "-1"),
}
"""The argument that Keras 3.15 leaves out of a loss's config, and its default."""
_CODE = {
    "__lambda__": "A Python lambda",
    "TorchModuleWrapper": "A pickled torch module",
    "TFSMLayer": "A TensorFlow SavedModel",
}


@dataclass(frozen=True)
class Note:
    """Something that a reader should know before loading the file."""

    kind: str
    """`code`, `import`, `lost` or `unseen`."""
    text: str


def notes(model: SavedModel) -> list[Note]:
    """What to know before loading, each said once."""
    root = Saved(model.config)
    found = [*_of_the_model(model, root), *_of_strings(model)]
    for node in _objects(model.config):
        found += _of_object(Saved(node), root)
    return sorted(dict.fromkeys(found), key=lambda note: note.kind)


def _objects(node: Json) -> Iterator[dict[str, Json]]:
    """Every object of a config."""
    stack = [node]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if isinstance(node.get("class_name"), str):
                yield node
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(item for item in node if isinstance(item, dict | list))


def _of_the_model(model: SavedModel, root: Saved) -> Iterator[Note]:
    if root.is_keras or root.is_ours():
        return
    yield Note(
        "unseen",
        f"The model class {root.name} is code of its own: layers that the code makes, "
        "and losses that it adds, can't be seen in the file.",
    )
    if compiled(model).get("optimizer") is not None:
        yield Note(
            "lost",
            f"If {root.name} overrides `compile`, Keras loads the model without its "
            "optimizer and losses: call `compile` again after loading.",
        )


def _of_strings(model: SavedModel) -> Iterator[Note]:
    """A loss saved by its string name, which only an import makes known."""
    strings = {x.loss for x in data_losses(model) if isinstance(x.loss, str)}
    if not strings:
        return
    try:
        ours = {e.name for e in catalogue.entries() if e.kind == "loss"}
    except (ModuleNotFoundError, OSError):
        return
    if strings & ours or any(s.startswith(f"{OURS}>") for s in strings):
        yield _import_of(OURS)


def _of_object(node: Saved, root: Saved) -> Iterator[Note]:
    if (what := _CODE.get(node.name)) is not None:
        yield Note(
            "code",
            f"{what} is in the file: Keras loads it with `safe_mode=False` only, which "
            "lets the file run any code. Do so only if you trust its author.",
        )
        return
    if node.is_keras:
        yield from _of_keras(node)
    elif node.key:
        yield _import_of(node.package)
    elif node.node.get("class_name") == "function":
        name = word(node.node.get("config"))
        if ">" in name:
            yield _import_of(name.partition(">")[0])
        elif name:
            yield _custom(name, "Unless Keras has a function of that name, load")
    else:
        yield _custom(node.name, "It is not registered: load")
    if node is not root and not node.is_keras and not node.is_ours():
        yield from _of_foreign_layer(node, root)


def _of_keras(node: Saved) -> Iterator[Note]:
    lost = _LOST.get(node.name)
    if lost is not None and "losses" in word(node.node.get("module")):
        argument, default = lost
        if argument not in node.config:
            yield Note(
                "lost",
                f"{node.name}'s `{argument}` is not in the file: Keras loads the loss "
                f"with {default}, whatever it was.",
            )
    module = word(node.node.get("module"))
    if module.startswith("keras.src.backend."):
        backend = module.split(".")[3]
        yield Note(
            "lost",
            f"The optimizer {node.name} is one of Keras' own for the {backend} "
            "backend: on another backend, compile again after loading.",
        )


def _of_foreign_layer(node: Saved, root: Saved) -> Iterator[Note]:
    if "trainable" in node.config and node.node is not root.node:
        yield Note(
            "unseen",
            f"The layer class {node.name} is code of its own: losses that it adds "
            "can't be seen in the file.",
        )


def _import_of(package: str) -> Note:
    module = package if package.isidentifier() else f"the code of '{package}'"
    return Note("import", f"Before loading, import {module}, which registers classes.")


def _custom(name: str, before: str) -> Note:
    return Note(
        "import",
        f"The file names '{name}'. {before} with `custom_objects={{'{name}': ...}}`.",
    )
