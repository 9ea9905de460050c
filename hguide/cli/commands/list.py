"""`hguide list`: what there is to choose from."""

from __future__ import annotations

from typing import Any, Literal

HELP = "Lists models, guidances, priors, schedules and backends, plug-ins included, one line each."
EXAMPLES = """
hguide list
hguide list priors
"""


def add_arguments(parser: Any) -> None:
    """Options of `hguide list`."""
    kinds = Literal["all", "models", "guidances", "priors", "schedules", "backends"]
    parser.add_argument("kind", type=kinds, nargs="?", default="all", help="one kind only.")


def run(options: Any) -> None:
    """Print the lists."""
    from hguide.cli.catalogue import KINDS, first_line, models, registries

    wanted = KINDS if options.kind == "all" else (options.kind,)
    blocks = []
    for kind in wanted:
        if kind == "models":
            lines = models()
        else:
            registry = registries()[kind]
            lines = {name: first_line(registry, name) for name in registry}
        wide = max(map(len, lines), default=0)
        blocks.append("\n".join([f"{kind}:", *(f"  {name:<{wide}}  {text}" for name, text in lines.items())]))
    print("\n\n".join(blocks))
