"""A generator from another package: the reference image, mirrored."""
