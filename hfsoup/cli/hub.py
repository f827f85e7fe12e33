"""`hfsoup hub`: a local Hub in a folder, its users and organisations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hfsoup.cli.app import app
from hfsoup.utils.errors import SoupError, UsageError

Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="the folder of the local Hub")]
TokenRole = Annotated[str, typer.Option(help="the role of the token: read or write")]

hub = typer.Typer(
    no_args_is_help=True, help="Serve a local Hub from a folder.\n\nFor demos, tests and machines without a network."
)
user = typer.Typer(
    no_args_is_help=True, help="Manage the users of a local Hub and their tokens; a running Hub takes changes at once."
)
org = typer.Typer(no_args_is_help=True, help="Manage the organisations of a local Hub and their members.")
app.add_typer(hub, name="hub")
hub.add_typer(user, name="user")
hub.add_typer(org, name="org")


@hub.command("serve", epilog="Example: hfsoup hub serve my-hub --port 0")
def serve_hub(
    folder: Annotated[Path, typer.Argument(help="the folder with its repositories")],
    port: Annotated[int, typer.Option(help="the port to listen on; 0 takes a free one")] = 8080,
    host: Annotated[str, typer.Option(help="the address to listen on")] = "127.0.0.1",
    user: Annotated[str, typer.Option(help="the first user, created if the folder has none yet")] = "user",
) -> None:
    """Serve a Hub from a folder until Ctrl-C."""
    from hfsoup.localhub import serve as serve_hub

    def ready(url: str, token: str) -> None:
        typer.echo(f"the Hub in {folder} listens; in another terminal:")
        typer.echo(f"  export HF_ENDPOINT={url} HF_TOKEN={token}")
        sys.stdout.flush()

    serve_hub(folder, host=host, port=port, user=user, ready=ready)


@user.command("add", epilog="Example: hfsoup hub user add kit --dir my-hub")
def add_user(
    name: Annotated[str, typer.Argument(help="the user, who is also a namespace of repositories")],
    folder: Folder,
    role: TokenRole = "write",
) -> None:
    """Add a user and print a token, which is shown only once."""
    from hfsoup.localhub.auth import Accounts

    accounts = Accounts(folder, create=True)
    if accounts.is_user(name):
        hint = f"hfsoup hub user token {name} --dir {folder}"
        raise SoupError(f"the user {name!r} exists already", where=str(folder), hint=hint)
    typer.echo(accounts.add_user(name, role=role))


@user.command("token", epilog="Example: hfsoup hub user token kit --role read --dir my-hub")
def add_token(name: Annotated[str, typer.Argument(help="a user")], folder: Folder, role: TokenRole = "write") -> None:
    """Print another token of a user, which is shown only once."""
    from hfsoup.localhub.auth import Accounts

    accounts = Accounts(folder)
    accounts.require_user(name)
    typer.echo(accounts.add_user(name, role=role))


@user.command("list", epilog="Example: hfsoup hub user list --dir my-hub")
def list_users(folder: Folder) -> None:
    """List the users, the roles of their tokens and their organisations."""
    from hfsoup.localhub.auth import Accounts

    accounts = Accounts(folder)
    orgs = accounts.orgs()
    for name, tokens in accounts.users().items():
        roles = [f"{known}:{members[name]}" for known, members in orgs.items() if name in members]
        typer.echo("  ".join([name, f"tokens: {', '.join(tokens.values()) or 'none'}", *roles]))


@user.command("remove", epilog="Example: hfsoup hub user remove kit --dir my-hub")
def remove_user(name: Annotated[str, typer.Argument(help="a user")], folder: Folder) -> None:
    """Remove a user with all tokens; repositories stay."""
    from hfsoup.localhub.auth import Accounts

    Accounts(folder).remove_user(name)
    typer.echo(f"removed the user {name}", err=True)


@org.command("add", epilog="Example: hfsoup hub org add lab --member kit:write --member ann:read --dir my-hub")
def add_org(
    name: Annotated[str, typer.Argument(help="the organisation, which is also a namespace of repositories")],
    folder: Folder,
    members: Annotated[
        list[str],
        typer.Option("--member", metavar="NAME[:ROLE]", help="a user with the role read, write (default) or admin"),
    ],
) -> None:
    """Add an organisation, or members to it."""
    from hfsoup.localhub.auth import Accounts

    roles = [member.partition(":")[::2] for member in members]
    Accounts(folder).add_members(name, {member: role or "write" for member, role in roles})
    typer.echo(f"{name}: {', '.join(members)}", err=True)


@org.command("role", epilog="Example: hfsoup hub org role lab kit read --dir my-hub")
def set_role(
    name: Annotated[str, typer.Argument(help="an organisation")],
    member: Annotated[str, typer.Argument(help="a member of it")],
    role: Annotated[str, typer.Argument(help="read, write or admin")],
    folder: Folder,
) -> None:
    """Change the role of a member."""
    from hfsoup.localhub.auth import Accounts

    accounts = Accounts(folder)
    if member not in accounts.orgs().get(name, {}):
        hint = f"hfsoup hub org add {name} --member {member}:{role} --dir {folder}"
        raise UsageError(f"{member!r} is not a member of the organisation {name!r}", hint=hint)
    accounts.add_members(name, {member: role})


@org.command("list", epilog="Example: hfsoup hub org list --dir my-hub")
def list_orgs(folder: Folder) -> None:
    """List the organisations and their members."""
    from hfsoup.localhub.auth import Accounts

    for name, members in Accounts(folder).orgs().items():
        typer.echo("  ".join([name, *(f"{member}:{role}" for member, role in members.items())]))


@org.command("remove", epilog="Example: hfsoup hub org remove lab --member kit --dir my-hub")
def remove_org(
    name: Annotated[str, typer.Argument(help="an organisation")],
    folder: Folder,
    member: Annotated[str | None, typer.Option(metavar="NAME", help="remove only this member")] = None,
) -> None:
    """Remove an organisation, or one member from it; repositories stay."""
    from hfsoup.localhub.auth import Accounts

    Accounts(folder).remove_org(name, member)
    typer.echo(f"removed {f'{member} from {name}' if member else f'the organisation {name}'}", err=True)
