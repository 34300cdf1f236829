"""One answer of a frozen model from several views."""
