"""`ieadapt maps`."""

from __future__ import annotations

from ieadapt.cli.console import print_json, shown_stages
from ieadapt.cli.options import Json, Out, Overwrite, takes
from ieadapt.runs.folder import default_folder, read_run
from ieadapt.runs.pipelines import spoken_folder
from ieadapt.tasks.maps.run import MapsRun, run_maps
from ieadapt.tasks.maps.summary import describe_maps


@takes(MapsRun)
def command(asked: MapsRun, *, out: Out = None, overwrite: Overwrite = False, as_json: Json = False) -> None:
    """The run folder gets heat maps (PNG), their numbers (maps.npz), the video and a report.

    `--query` asks where one token looks; without it, where all look on average. Cross-attention is shown per word.

    Example: `ieadapt maps shapes --prompt "a big red ball moving right over bricks" --num-inference-steps 8
    --site mid_block.motion_modules.0.transformer_blocks.0.attn1 --steps 0,7 --query 4,2,2 --out runs/maps`
    """
    folder = out or default_folder("maps")
    with shown_stages() as stages:
        maps = run_maps(asked, folder, overwrite=overwrite, stages=stages)
    if as_json:
        files = read_run(folder)["files"]
        print_json({"folder": str(folder), "site": maps.site.name, "steps": maps.steps, "files": files})
        return
    print("\n".join(describe_maps(maps)))
    print(f"report: {spoken_folder(folder / 'report.html')}")
