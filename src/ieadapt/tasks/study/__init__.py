"""Studies on disk: what a study folder holds, and the workers that fill it.

A study folder holds

- `study.json`: the request; the same for every process that works on the folder.
- `grid.json`: every condition (sites, perturbation, head), written once, with the model's `profile.parquet` and
  `profile.json` (EP and energy, see `ieadapt.tasks.EntropyProfile`).
- `cells/KEY.json`: one perturbed video measured against its baseline, under the hash of all that it depends on.
- `twins/KEY.safetensors`: unperturbed videos, and the latents where the window begins. Made again if removed.
- `strips/KEY.npz`: a few frames of the first prompts, perturbed and not, to draw from (`videos.read_strips`).
- `locks/`: which cells a process computes now.
- `notes/HASH.txt`: what was warned of in any process that worked on the folder.
- `rejected/`: files that were damaged, or of something else; never used.
- `study.parquet`: all cells as one table, with EP and energy of their sites (`table.compact`); counts as cells too, so
  that a study goes on from `study.json`, `grid.json`, the profile and this table alone.
"""
