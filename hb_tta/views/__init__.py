"""Planning, making and choosing the views of a context."""
