"""Loading a video pipeline by name, folder or hub id.

Example:
    >>> from ieadapt.models import known_models
    >>> "scenes" in known_models()
    True
"""

from ieadapt.models.loading import PRECISIONS, check_memory, load, loaded_size
from ieadapt.models.location import BundledModel, known_models, model_folder

__all__ = ["PRECISIONS", "BundledModel", "check_memory", "known_models", "load", "loaded_size", "model_folder"]
