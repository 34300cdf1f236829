"""The pocket family: a procedural world, its tasks, and models that were trained on it.

The world's scenes are known exactly, so whatever a model says of an image, or a generator draws
of a description, can be judged. See ``docs/pocket/CARD.md`` for every figure.
"""
