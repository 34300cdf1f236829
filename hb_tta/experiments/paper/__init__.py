"""The tables and figures of the papers, a file each, or one for those that share their runs."""
