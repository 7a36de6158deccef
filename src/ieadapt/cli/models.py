"""`ieadapt models`."""

from __future__ import annotations

from ieadapt.attention import FAMILIES
from ieadapt.cli.console import print_json, print_table
from ieadapt.cli.options import Json
from ieadapt.models import known_models


def command(*, as_json: Json = False) -> None:
    """A model is a bundled name, a folder that `save_pretrained` wrote, or a hub id.

    Example: `ieadapt models --json`
    """
    bundled = [{"name": m.name, "family": m.family, "summary": m.summary} for m in known_models().values()]
    families = [
        {"family": family.name, "denoiser": family.denoiser.__name__, "guidance": family.guidance}
        for family in FAMILIES
    ]
    if as_json:
        print_json({"bundled": bundled, "families": families})
        return
    print_table(("bundled model", "family", "makes"), [list(row.values()) for row in bundled])
    print()
    print_table(("family", "denoiser in diffusers", "guidance branches"), [list(row.values()) for row in families])
