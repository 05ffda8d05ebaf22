"""Files onto a Hugging Face Hub: one commit, private unless said otherwise. The token comes from the environment only.

HF_TOKEN is the token, HF_ENDPOINT another Hub than huggingface.co. Neither is written anywhere.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptopt.errors import ConfigError, PublishError
from promptopt.extras import require

TOKEN_VARIABLE = "HF_TOKEN"
ENDPOINT_VARIABLE = "HF_ENDPOINT"
DEFAULT_ENDPOINT = "https://huggingface.co"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Upload:
    """One file: where it lies, and its name in the repository."""

    path: Path
    name: str

    @property
    def size_bytes(self) -> int:
        """Bytes to upload."""
        return self.path.stat().st_size


def check_repository(name: str) -> str:
    """Return `name` if it can name a repository.

    Raises:
        ConfigError: it is not user/name.
    """
    if not _REPOSITORY.fullmatch(name) or len(name) > 96 or "--" in name or ".." in name:
        raise ConfigError(f"--repo {name!r} names no repository; write user/name, in letters, digits and . _ -")
    return name


def token_from_environment() -> str:
    """Return the token.

    Raises:
        ConfigError: there is none.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise ConfigError(
            f"{TOKEN_VARIABLE} is not set. Make a token with write access on the Hub (Settings, Access Tokens), and "
            f"give the command as `{TOKEN_VARIABLE}=$(cat token.txt) promptopt publish …`."
        )
    return token


def upload(files: Sequence[Upload], repository: str, token: str, *, private: bool, message: str) -> str:
    """Put `files` into `repository` in one commit, and return the commit's address. Makes the repository if need be.

    Raises:
        PublishError: the Hub refuses, cannot be reached, or holds a public repository where a private one is wanted.
        MissingExtraError: huggingface_hub is not installed.
    """
    hub = require("huggingface_hub")
    httpx = require("httpx")
    endpoint = (os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT).rstrip("/")
    api = hub.HfApi(endpoint=endpoint, token=token, library_name="promptopt")
    try:
        _open(api, hub, repository, private)
        operations = [hub.CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=str(file.path)) for file in files]
        commit = api.create_commit(repository, operations, commit_message=message, repo_type="model")
    except hub.errors.HfHubHTTPError as error:
        raise _refused(error, endpoint, repository) from error
    except (httpx.HTTPError, OSError) as error:
        raise PublishError(
            f"The Hub at {endpoint} cannot be reached ({type(error).__name__}: {_line(error)}). Check the network and "
            f"{ENDPOINT_VARIABLE}; HF_HUB_OFFLINE must not be set. The same command goes on where it stopped."
        ) from error
    except RuntimeError as error:
        # What huggingface_hub raises where a large file does not get through.
        raise PublishError(
            f"The upload to {repository} broke off ({_line(error.__cause__ or error)}). Nothing shows in "
            "the repository yet; the same command goes on where it stopped."
        ) from error
    return str(commit.commit_url)


def _open(api: Any, hub: Any, repository: str, private: bool) -> None:
    """Make the repository, or make sure that one which is there is no more public than asked for."""
    try:
        found = api.repo_info(repository, repo_type="model")
    except hub.errors.RepositoryNotFoundError:
        api.create_repo(repository, private=private, repo_type="model")
        found = api.repo_info(repository, repo_type="model")
    if private and not found.private:
        raise PublishError(
            f"The repository {repository} is public, and nothing was uploaded. Name another one, make it private on "
            "the Hub, or say --public."
        )


def _refused(error: Any, endpoint: str, repository: str) -> PublishError:
    status = getattr(error.response, "status_code", 0)
    if status == 401:
        return PublishError(
            f"The Hub at {endpoint} does not know the token in {TOKEN_VARIABLE} (401). Make one with write access."
        )
    if status == 403:
        return PublishError(
            f"The token in {TOKEN_VARIABLE} may not write to {repository} (403). Use one with write access to it."
        )
    said = getattr(error, "server_message", None) or _line(error)
    return PublishError(f"The Hub at {endpoint} refused the upload to {repository} ({status}): {said}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
