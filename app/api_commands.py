"""`marquee keys`, `marquee rules` and `marquee openapi`: what goes with the HTTP API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from app.keys import KeysError, Scope, create_key, read_keys, revoke_key

if TYPE_CHECKING:
    from app.rules import Rules

console = Console(stderr=True)

KeysFile = Annotated[Path, typer.Option("--file", help="File of keys, as in MARQUEE_API_KEYS.")]
_DEFAULT_FILE = Path(".marquee/keys.json")


def register(app: typer.Typer) -> None:
    """Add the commands to the root command."""
    keys = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
    keys.command("create")(create)
    keys.command("list")(list_keys)
    keys.command("revoke")(revoke)
    app.add_typer(keys, name="keys")
    rules = typer.Typer(help="Rules that shape slates.", no_args_is_help=True)
    rules.command("check")(check)
    app.add_typer(rules, name="rules")
    app.command()(openapi)


def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for people.")],
    scope: Annotated[list[Scope], typer.Option(help="What it allows; may be given several times.")],
    file: KeysFile = _DEFAULT_FILE,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make a key and print it, this once: the file keeps a hash only.

    A running service with MARQUEE_API_KEYS=FILE knows the key within seconds.

    Example: marquee keys create page --scope recommend --scope feedback
    """
    if not 1 <= len(name) <= 100 or not name.isprintable():
        _fail("NAME must be 1 to 100 printable characters")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        secret, key = create_key(file, name, scope)
    except KeysError as error:
        _fail(str(error))
    if as_json:
        typer.echo(json.dumps({"id": key.id, "key": secret, "scopes": sorted(key.scopes)}))
    else:
        typer.echo(secret)


def list_keys(
    file: KeysFile = _DEFAULT_FILE,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the keys: everything but the secrets, which nobody knows.

    Example: marquee keys list --json
    """
    try:
        keys = read_keys(file).keys.values()
    except KeysError as error:
        _fail(str(error))
    rows = [
        {
            "id": key.id,
            "name": key.name,
            "scopes": sorted(key.scopes),
            "created_at": key.created_at,
            "revoked_at": key.revoked_at,
        }
        for key in keys
    ]
    if as_json:
        typer.echo(json.dumps({"keys": rows}))
        return
    table = Table("id", "name", "scopes", "created", "revoked")
    for key in keys:
        scopes = ", ".join(sorted(key.scopes))
        table.add_row(key.id, key.name, scopes, key.created_at, key.revoked_at or "")
    Console().print(table)


def revoke(
    key_id: Annotated[str, typer.Argument(help="The id that `marquee keys list` shows.")],
    file: KeysFile = _DEFAULT_FILE,
) -> None:
    """Make a key worthless, in a running service within seconds.

    Example: marquee keys revoke 1f2e3d4c
    """
    try:
        key = revoke_key(file, key_id)
    except KeysError as error:
        _fail(str(error))
    typer.echo(f"revoked {key.id} ({key.name})")


def check(
    file: Annotated[Path, typer.Argument(help="A rules file, as in MARQUEE_RULES.")],
    store: Annotated[
        str | None,
        typer.Option(help="Warn of what the catalogue of this store's production version lacks."),
    ] = None,
) -> None:
    """Check a rules file: one line per mistake and exit status 2, or a word of praise.

    What a catalogue lacks is a warning: such a rule has no effect, and may have one later.

    Example: marquee rules check rules.yaml --store .marquee/store
    """
    from app.rules_json import RulesError, read_rules

    try:
        rules = read_rules(str(file)).rules
    except RulesError as error:
        for line in str(error).splitlines():
            console.print(f"error: {line}", style="bold red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
    if store is not None and rules is not None:
        for line in _without_effect(rules, store):
            console.print(f"warning: {file}: {line}", style="yellow", markup=False, soft_wrap=True)
    typer.echo(f"{file}: correct")


def _without_effect(rules: Rules, store: str) -> list[str]:
    from app.adapters.store import bundle_store
    from app.settings import Settings
    from app.stages.rules import RulesStage
    from training.model.bundle import Bundle, BundleError

    try:
        bundles = bundle_store(Settings.model_validate({"store": store}))
        version = bundles.production()
        if version is None:
            _fail(f"{store} has no published version")
        return RulesStage(Bundle.open(bundles.locate(version))).without_effect(rules)
    except (BundleError, OSError, ValueError) as error:
        _fail(str(error))


def openapi(
    out: Annotated[Path | None, typer.Option(help="File to write; without it, to stdout.")] = None,
) -> None:
    """Write the OpenAPI document of the HTTP API, as a running service has it at /openapi.json.

    Example: marquee openapi --out docs/openapi.json
    """
    from app.api.openapi import text
    from app.api.routes import openapi_document

    content = text(openapi_document())
    if out is None:
        typer.echo(content, nl=False)
        return
    try:
        out.write_text(content, "utf-8")
    except OSError as error:
        _fail(f"{out}: {error.strerror}")


def _fail(message: str) -> NoReturn:
    console.print(f"error: {message}", style="bold red", markup=False, soft_wrap=True)
    raise typer.Exit(2)
