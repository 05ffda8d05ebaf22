"""Named layouts: good starting points, and the ones a report can be read against.

What lives here: values only. Context before the query won by 14.7 points over 21 models (arXiv 2601.14152), hence the
several `*_query_last`; `dspy_chat` is what a DSPy user has today.
"""

from collections.abc import Mapping
from types import MappingProxyType

from promptopt.layout.spec import Layout

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "dspy_chat": Layout(),
        "dspy_query_last": Layout(query_position="after"),
        "xml_query_last": Layout(query_position="after", field_style="xml", output_style="xml"),
        "xml_query_first": Layout(query_position="before", field_style="xml", output_style="xml"),
        "markdown_query_last": Layout(
            query_position="after", field_style="markdown", output_style="label", descriptions="names"
        ),
        "label_query_last": Layout(
            query_position="after", field_style="label", output_style="label", descriptions="none", prefill=True
        ),
        "label_bare": Layout(
            query_position="after", field_style="label", output_style="bare", descriptions="none", structure=False
        ),
        "json_io": Layout(field_style="json", output_style="json"),
        "query_both_sides": Layout(
            query_position="both", field_style="xml", output_style="xml", instruction_place="both", descriptions="names"
        ),
        "one_message": Layout(
            query_position="after",
            field_style="markdown",
            output_style="bare",
            instruction_place="user_start",
            descriptions="none",
            structure=False,
            demo_placement="block",
        ),
        "xml_reasoning": Layout(
            query_position="after", field_style="xml", output_style="xml", descriptions="names", reasoning=True
        ),
    }
)
