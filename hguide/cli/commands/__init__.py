"""One file per command; each has `HELP`, `EXAMPLES`, `add_arguments(parser)` and `run(options)`."""
