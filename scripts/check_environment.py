"""Say whether this environment can run ieadapt: what must be absent is absent, what must import imports.

torchvision from the registry does not match a CPU build of torch; once it is installed, transformers can no longer
import CLIPModel, and with it every pipeline of diffusers is lost. xformers installs but its kernels do not match.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

FORBIDDEN = ("torchvision", "xformers")
REQUIRED = (
    ("torch", "nn"),
    ("transformers", "CLIPModel"),
    ("transformers", "T5EncoderModel"),
    ("diffusers", "AnimateDiffPipeline"),
    ("diffusers", "CogVideoXPipeline"),
    ("diffusers", "WanPipeline"),
)


def problems() -> list[str]:
    """List what is wrong with the environment, one line each; an empty list when all is well."""
    found = [f"{name} is installed; run: pip uninstall {name}" for name in FORBIDDEN if importlib.util.find_spec(name)]
    for module, attribute in REQUIRED:
        try:
            getattr(importlib.import_module(module), attribute)
        except Exception as error:  # any failure to import, of whatever kind, is the finding
            found.append(f"{module}.{attribute} does not import: {error}")
    return found


def main() -> int:
    """Print the findings; 0 when there are none."""
    found = problems()
    print("\n".join(found) or "environment: ok", file=sys.stderr if found else sys.stdout)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
