"""Faithful, different images of an image, and the answers of a frozen model over all of them."""
