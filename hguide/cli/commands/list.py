"""`hguide list`: what there is to choose from."""

from __future__ import annotations

from typing import Any, Literal

HELP = """
Lists models, guidances, priors, schedules and backends, plug-ins included, one line each. For a guidance with the
predictions that the model makes per step: by itself, and after cfg, whose null stream counts too.
"""
EXAMPLES = """
hguide list
hguide list priors
hguide list guidance
"""


def add_arguments(parser: Any) -> None:
    """Options of `hguide list`."""
    plural = Literal["all", "models", "guidances", "priors", "schedules", "backends"]
    kinds = plural | Literal["model", "guidance", "prior", "schedule", "backend"]
    parser.add_argument("kind", type=kinds, nargs="?", default="all", help="one kind only.")


def run(options: Any) -> None:
    """Print the lists."""
    from hguide.cli.catalogue import KINDS, first_line, models, registries, stream_cost

    wanted = KINDS if options.kind == "all" else tuple(kind for kind in KINDS if options.kind in (kind, kind[:-1]))
    blocks = []
    for kind in wanted:
        if kind == "models":
            lines = models()
        else:
            registry = registries()[kind]
            lines = {name: first_line(registry, name) for name in registry}
        if kind == "guidances":
            costs = {name: stream_cost(name) for name in lines}
            wide_cost = max(map(len, costs.values()), default=0)
            lines = {name: f"{costs[name]:<{wide_cost}}  {text}" for name, text in lines.items()}
        wide = max(map(len, lines), default=0)
        blocks.append("\n".join([f"{kind}:", *(f"  {name:<{wide}}  {text}" for name, text in lines.items())]))
    print("\n\n".join(blocks))
