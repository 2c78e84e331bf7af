"""Classes with one fault each, and the law that must find it."""

from bugs import classes, layers, losses, metrics, preconditioners, strengths

__all__ = ["classes", "layers", "losses", "metrics", "preconditioners", "strengths"]
