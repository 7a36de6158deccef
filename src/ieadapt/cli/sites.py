"""`ieadapt sites`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from ieadapt.attention import find_sites, select_sites
from ieadapt.cli.console import print_json, print_table
from ieadapt.cli.options import Json, Model
from ieadapt.models import load


def command(
    model: Model,
    *,
    sites: Annotated[str | None, typer.Option("--sites", help="names, patterns or kinds, with commas")] = None,
    as_json: Json = False,
) -> None:
    """The names are those that `--sites` and `intercept` take.

    Example: `ieadapt sites shapes --sites temporal`
    """
    chosen = select_sites(find_sites(load(model)), sites)
    if as_json:
        print_json([dataclasses.asdict(site) for site in chosen])
        return
    rows = [[str(site.order), site.kind, str(site.heads), site.name] for site in chosen]
    print_table(("#", "kind", "heads", "site"), rows, numeric=(0, 2))
