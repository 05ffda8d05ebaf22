"""The error tree: every error promptopt raises on purpose, and nothing else.

    PromptoptError                 anything a user can act on; the CLI prints it and exits with code 2
    ├── ConfigError (ValueError)   an experiment file, an argument or an import path is wrong
    ├── DataError (ValueError)     a data file, row or field is wrong
    ├── ModelError                 a model file is missing, truncated, or lacks something it needs
    │   ├── ContextLengthError     a prompt does not fit into the model's context
    │   └── PromptRefusedError     a chat template refuses a prompt: the layout does not suit this model
    ├── LMError                    a language model (engine, server) broke while answering
    │   ├── BusyError              too many requests wait for it already
    │   └── RequestTimeoutError    no answer came within the time that was allowed (TimeoutError)
    ├── ParseError (ValueError)    a completion does not parse in its layout: data, not a breakdown
    ├── TrainingError              a fine-tuning run must not start or go on
    ├── ExportError                weights cannot be turned into the file that was asked for
    ├── PublishError               a hub refused an upload, or could not be reached
    ├── StageError                 a stage misses what an earlier stage should have written
    └── MissingExtraError          an optional dependency is not installed (ImportError)

A message says what was wrong, which value, what is allowed, and what to do next. `assert` is kept for promptopt's own
invariants.
"""


class PromptoptError(Exception):
    """Base of all errors a user can act on."""


class ConfigError(PromptoptError, ValueError):
    """An experiment file, a command line argument or an import path is wrong."""


class DataError(PromptoptError, ValueError):
    """A data file, one of its rows, or a field of a row is wrong."""


class ModelError(PromptoptError):
    """A model file is missing, truncated, unreadable, or lacks something that is needed."""


class ContextLengthError(ModelError):
    """A prompt, with room for its answer, does not fit into the model's context."""


class PromptRefusedError(ModelError):
    """The model's chat template refuses a prompt, e.g. its system message: the layout does not suit this model."""


class LMError(PromptoptError):
    """A language model broke while answering: the system failed, not the candidate."""


class BusyError(LMError):
    """So many requests wait for a model already that no more are accepted."""


class RequestTimeoutError(LMError, TimeoutError):
    """No answer came within the time that was allowed; the request was given up and its place freed."""


class ParseError(PromptoptError, ValueError):
    """A completion does not parse in its layout. Scored 0 as PARSE_FAILED; never retried in another format."""


class TrainingError(PromptoptError):
    """A fine-tuning run must not start, or must not go on."""


class ExportError(PromptoptError):
    """Weights cannot be turned into the file that was asked for."""


class PublishError(PromptoptError):
    """A hub refused an upload, or could not be reached."""


class StageError(PromptoptError):
    """A stage of a run misses a file that an earlier stage should have written."""


class MissingExtraError(PromptoptError, ImportError):
    """An optional dependency is not installed; the message carries the line that installs it."""
