"""`hfsoup cache`: what hfsoup keeps on this disk, and how to remove it."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from hfsoup.cli.app import app

Json = Annotated[bool, typer.Option("--json", help="print one JSON object")]
OTHERS = (
    "Models and datasets that were downloaded are in the cache of huggingface_hub: see hf cache ls, hf cache prune."
)

cache = typer.Typer(
    invoke_without_command=True,
    help=f"List what hfsoup keeps on this disk, by kind, size and last use.\n\n{OTHERS}",
)
app.add_typer(cache, name="cache")


@cache.callback()
def list_cache(ctx: typer.Context, *, json_object: Json = False) -> None:
    """List the cache, unless a command of it follows."""
    from rich.console import Console
    from rich.table import Table

    from hfsoup.utils.cache import KINDS, list_entries, read_limit
    from hfsoup.utils.text import format_count, format_size

    if ctx.invoked_subcommand:
        return
    found = _describe_cache()
    if json_object:
        _print_json(found)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("kind", "items", "size", "last use", "what it is"):
        table.add_column(
            title, justify="right" if title in ("items", "size") else "left", no_wrap=title != "what it is"
        )
    for row in found["kinds"]:
        used = datetime.fromtimestamp(row["used"]).astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(row["kind"], f"{row['items']:,}", format_size(row["bytes"]), used, KINDS[row["kind"]])
    if found["kinds"]:
        Console().print(table)
    entries = format_count(len(list_entries()), "item")
    typer.echo(f"{format_size(found['bytes'])} in {entries}, limit {format_size(read_limit())}: {found['folder']}")
    typer.echo(OTHERS)


@cache.command("prune", epilog="Example: hfsoup cache prune --cache-limit 20GB")
def prune(
    *,
    cache_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="the size to come down to, as in 20GB; 0 removes all \\[$HFSOUP_CACHE_LIMIT, or 50GB]"
        ),
    ] = None,
    json_object: Json = False,
) -> None:
    """Remove what was used longest ago, but nothing that a running bake uses."""
    from hfsoup.utils.cache import list_entries, prune_cache, read_limit
    from hfsoup.utils.text import format_count, format_size

    removed = prune_cache(read_limit(cache_limit))
    left = sum(entry.size for entry in list_entries())
    size = sum(entry.size for entry in removed)
    if json_object:
        _print_json({"removed": len(removed), "bytes": size, "left": left})
        return
    entries = format_count(len(removed), "item")
    typer.echo(f"removed {entries}, {format_size(size)}; {format_size(left)} are left")
    if not cache_limit and left:
        typer.echo("hfsoup cache prune --cache-limit 0 removes everything that no running bake uses")


def _describe_cache() -> dict[str, Any]:
    """The cache as JSON values; `used` are seconds since 1970."""
    from hfsoup.utils.cache import KINDS, cache_root, list_entries, read_limit

    entries, kinds = list_entries(), []
    for kind in KINDS:
        if own := [entry for entry in entries if entry.kind == kind]:
            size = sum(entry.size for entry in own)
            kinds.append({"kind": kind, "items": len(own), "bytes": size, "used": own[-1].used})
    total = sum(entry.size for entry in entries)
    return {"folder": str(cache_root()), "bytes": total, "limit": read_limit(), "kinds": kinds}


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
