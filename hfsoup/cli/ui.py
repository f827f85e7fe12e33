"""The command that serves the page, or writes it as a Space."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfsoup.cli.app import app


@app.command(epilog="Example: hfsoup ui --port 7861")
def ui(
    host: Annotated[
        str, typer.Option(help="the address to listen on; with any but this one the page is public: no token, no push")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="the port to listen on; 0 takes a free one")] = 7860,
    space: Annotated[
        Path | None, typer.Option(metavar="DIR", help="do not serve it: write this page as a folder for a Space")
    ] = None,
) -> None:
    """Bake, inspect, try and push in the browser.

    Needs pip install 'hfsoup\\[ui]'.
    """
    from hfsoup.ui.server import serve as serve_page
    from hfsoup.ui.space import write_space

    if space is not None:
        write_space(space)
        typer.echo(f"wrote {space}; make it a Space with: hf upload ORG/NAME {space} . --repo-type space", err=True)
        return

    def ready(url: str, public: bool) -> None:
        typer.echo(f"the page: {url}", err=True)
        if public:
            typer.echo("the page is public: Hub names only, no token, no push", err=True)

    serve_page(host, port, ready)
