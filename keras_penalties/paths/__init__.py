"""Which strength: the least that makes all zero, and the models on the way there."""
