"""The `marquee` command: only its root. Each part registers its own commands.

A part is an entry point of the group `marquee.commands`, whose target is a function
``register(app: typer.Typer) -> None``; pyproject.toml lists them. The command modules import
heavy packages inside their functions, so that `marquee --help` is quick.
"""

import sys
from importlib.metadata import entry_points

import typer
from rich.console import Console

from training.errors import UserError

COMMAND_GROUP = "marquee.commands"

console = Console(stderr=True)


def build_app() -> typer.Typer:
    """The root command with every registered part, in the order of their names."""
    app = typer.Typer(
        name="marquee",
        help="Recommendations over HTTP from a table of who-watched-what, on Ray.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    for entry_point in sorted(entry_points(group=COMMAND_GROUP), key=lambda entry: entry.name):
        register = entry_point.load()
        register(app)
    return app


def main() -> None:
    """Run the command line. A UserError is one line on stderr and exit status 2."""
    try:
        build_app()()
    except UserError as error:
        console.print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
