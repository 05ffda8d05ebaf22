"""Makes the recipe's plain modules importable; they live beside the package, not in it."""

import pathlib
import sys

_EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"
for _folder in ("starter_model", "demo"):
    sys.path.insert(0, str(_EXPERIMENTS / _folder))
