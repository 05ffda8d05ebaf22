"""The best prompt that is known for a GGUF: given, in the file itself, beside it, or of this experiment's run."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from promptopt.candidate import Candidate, load_candidate
from promptopt.errors import ConfigError
from promptopt.lm.gguf_info import read_gguf
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.prepare import base_settings
from promptopt.pipeline.searching import SEARCH_AFTER, best_candidate, search_settings

CANDIDATE_KEY = "promptopt.candidate"
PROGRAM_KEY = "promptopt.program"


@dataclass(frozen=True)
class KnownPrompt:
    """A candidate, and where it comes from in a few words."""

    candidate: Candidate
    source: str


def known_prompt(context: RunContext, gguf: Path, given: Path | None = None) -> KnownPrompt:
    """Return the prompt that `gguf` is measured with; the first that is there counts.

    1. `given`; 2. the candidate in the GGUF's metadata, if it is of this program; 3. a file beside it:
    `<name>.candidate.json` or `candidate.json`, or the candidate of the run folder it lies in; 4. what this
    experiment's search found; 5. the program as it was written, in the start layout.

    Raises:
        ConfigError: a candidate file is damaged.
        ModelError: the file is no GGUF.
    """
    if given is not None:
        return KnownPrompt(load_candidate(given), f"given ({given.name})")
    inside = _in_metadata(context, gguf)
    if inside is not None:
        return KnownPrompt(inside, "in the GGUF")
    beside = _beside(gguf)
    if beside is not None:
        return KnownPrompt(load_candidate(beside), f"beside the GGUF ({beside.parent.name}/{beside.name})")
    if _searched(context):
        return KnownPrompt(best_candidate(context), "best of this experiment's search")
    return KnownPrompt(context.untouched, "plain, in the start layout")


def _in_metadata(context: RunContext, gguf: Path) -> Candidate | None:
    metadata = read_gguf(gguf).metadata
    text = metadata.get(CANDIDATE_KEY)
    if text is None or metadata.get(PROGRAM_KEY, context.config.program) != context.config.program:
        return None
    try:
        found = Candidate.model_validate_json(str(text))
    except ValidationError as error:
        raise ConfigError(
            f"{gguf} carries a {CANDIDATE_KEY} that is no candidate ({str(error).splitlines()[0]}); it was written by "
            "another version of promptopt. Give its prompt with --candidate."
        ) from error
    return found


def _beside(gguf: Path) -> Path | None:
    run = gguf.resolve().parent.parent
    in_run = {"export": run / "distill" / "student.json", "base": run / "search" / "candidate.json"}
    places = [gguf.with_suffix(".candidate.json"), gguf.parent / "candidate.json"]
    stage = gguf.resolve().parent.name
    if stage in in_run and (run / "experiment.json").is_file():
        places.append(in_run[stage])
    return next((path for path in places if path.is_file()), None)


def _searched(context: RunContext) -> bool:
    """Return whether this experiment's search has finished, with the settings it has now."""
    return context.take("base", base_settings(context), ()) and context.take(
        "search", search_settings(context), SEARCH_AFTER
    )
