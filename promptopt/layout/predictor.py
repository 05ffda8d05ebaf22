"""Predictors that carry their Layout: DSPy keeps its adapter in global settings and forgets it when a program is saved.

Knows nothing of candidates or searches.
"""

from typing import Any

import dspy

from promptopt.layout.dspy_adapter import LayoutAdapter, note_layout
from promptopt.layout.spec import Layout


class LaidOut:
    """Mixin of a predictor whose calls run under its own LayoutAdapter, whatever is configured globally."""

    layout: Layout
    signature: type[dspy.Signature]

    def forward(self, **kwargs: Any) -> dspy.Prediction:
        """Run the predictor's own forward under the layout."""
        note_layout(self.signature, self.layout)
        with dspy.context(adapter=LayoutAdapter(self.layout)):
            return super().forward(**kwargs)  # type: ignore[misc]

    async def aforward(self, **kwargs: Any) -> dspy.Prediction:
        """Run the predictor's own aforward under the layout."""
        note_layout(self.signature, self.layout)
        with dspy.context(adapter=LayoutAdapter(self.layout)):
            return await super().aforward(**kwargs)  # type: ignore[misc]

    def dump_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the predictor's state with the layout beside it."""
        state: dict[str, Any] = super().dump_state(*args, **kwargs)  # type: ignore[misc]
        return {**state, "layout": self.layout.model_dump(mode="json")}

    def load_state(self, state: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Restore the layout, then the rest of the predictor's state."""
        rest = dict(state)
        if "layout" in rest:
            self.layout = Layout.model_validate(rest.pop("layout"))
        return super().load_state(rest, *args, **kwargs)  # type: ignore[misc]


def bind_layout(predictor: dspy.Predict, layout: Layout) -> None:
    """Make `predictor` carry `layout`, in place; a second call replaces the first layout."""
    if not isinstance(predictor, LaidOut):
        predictor.__class__ = _laid_out_class(type(predictor))
    predictor.layout = layout


_CLASSES: dict[type[Any], type[Any]] = {}


def _laid_out_class(base: type[Any]) -> type[Any]:
    # A class of its own per base, so that copies, isinstance checks and overridden forwards keep working.
    if base not in _CLASSES:
        _CLASSES[base] = type(f"LaidOut{base.__name__}", (LaidOut, base), {"__module__": base.__module__})
    return _CLASSES[base]
