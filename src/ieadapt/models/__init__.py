"""Loading a video pipeline by name, folder or hub id.

Example:
    >>> from ieadapt.models import known_models
    >>> "shapes" in known_models()
    True
"""

from ieadapt.models.bundled import BundledModel, known_models
from ieadapt.models.loading import load
from ieadapt.models.location import model_folder

__all__ = ["BundledModel", "known_models", "load", "model_folder"]
