"""The command that serves the page, or writes it as a Space."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfsoup.cli.app import app


@app.command(epilog="Example: hfsoup ui --port 7861")
def ui(
    host: Annotated[
        str, typer.Option(help="the address to listen on; on any other one visitors are strangers")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 7860,
    space: Annotated[
        Path | None, typer.Option(metavar="DIR", help="write the folder of a Space with this page instead")
    ] = None,
) -> None:
    """Open a page in the browser to bake, look, try and push; pip install 'hfsoup\\[ui]'."""
    from hfsoup.ui import serve as serve_page
    from hfsoup.ui.space import write_space

    if space is not None:
        write_space(space)
        typer.echo(f"wrote {space}; it becomes a Space with: hf upload ORG/NAME {space} . --repo-type space", err=True)
        return

    def ready(url: str, strangers: bool) -> None:
        typer.echo(f"the page: {url}", err=True)
        if strangers:
            typer.echo("for strangers: names on the Hub only, no token, no push", err=True)

    serve_page(host, port, ready)
