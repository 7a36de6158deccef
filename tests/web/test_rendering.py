"""What a browser is told of errors: no path, no token, no traceback, and fields instead of flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from ieadapt.errors import FailureError, UsageError
from ieadapt.web.rendering import folders_of_this_machine, hide_folders, message_of


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UsageError("not a profile", where=Path("/srv/a/b")), "Not a profile."),
        (UsageError("no site", where="mid_block.attn1", got=3), "No site; got 3; in mid_block.attn1."),
        (FailureError("cannot be read", got="/srv/x/y.mp4: no such file"), "Cannot be read; got y.mp4: no such file."),
        (UsageError("gone", got="~/models/secret"), "Gone; got secret."),
        (UsageError("login", got="hf_AbCdEfGhIjKlMnOp"), "Login; got (a token)."),
        (UsageError("too few", remedy="raise --guidance-scale"), "Too few; remedy: raise “Guidance scale”."),
        (UsageError("sizes", got="128x128 and 8/3 per second"), "Sizes; got 128x128 and 8/3 per second."),
    ],
)
def test_an_error_of_this_package(error: Exception, message: str) -> None:
    assert message_of(error) == message


def test_the_folders_of_this_machine_are_left_out_of_texts() -> None:
    folders = folders_of_this_machine(Path("/srv/app/runs"))
    text = f"--out /srv/app/runs/measure-1 --profile {Path.home()}/x, weights in {Path.cwd()}"
    assert hide_folders(text, folders) == "--out measure-1 --profile x, weights in ."
