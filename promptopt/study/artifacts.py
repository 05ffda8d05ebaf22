"""Files of trials that other workers need: LoRA weights and their candidates, through Optuna's artifact store."""

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna

from promptopt.errors import ConfigError, StageError
from promptopt.pools.pool import Pools
from promptopt.rundir import read_json, write_json
from promptopt.study.trials import slot_of
from promptopt.study.tuner import KEPT_FILES

_POOLS = "pools.json"


class Artifacts:
    """The artifact store at `where`: a folder that all workers see, or `s3://bucket/prefix`.

    Raises:
        ConfigError: an S3 address without boto3 installed, or another scheme.
    """

    def __init__(self, where: str | Path) -> None:
        self._store = _store(str(where))

    def keep(self, study: optuna.Study, trial: optuna.Trial, folder: Path, key: str) -> None:
        """Upload the trial's files; those that an earlier attempt uploaded are not sent again.

        Args:
            key: sha256 of the LoRA GGUF. A trial that another worker died over brings that one's list of files, and
                the same training on another machine gives other weights: files of one training carry one key.
        """
        known = {meta.filename for meta in _metas(trial, study)}
        for name in KEPT_FILES:
            if _flat(name, key) not in known:
                self.put(study, trial, folder / name, _flat(name, key))

    def keep_pools(self, study: optuna.Study, pools: Pools) -> None:
        """Upload the pools of `study`, unless they are there."""
        if any(meta.filename == _POOLS for meta in _metas(study, study)):
            return
        with tempfile.TemporaryDirectory() as temporary:
            write_json(Path(temporary) / _POOLS, pools)
            self.put(study, study, Path(temporary) / _POOLS, _POOLS)

    def fetch_pools(self, study: optuna.Study, target: Path) -> Pools | None:
        """Download the pools of `study` to `target`; None where this store has none (another store, or none yet)."""
        metas = [meta for meta in _metas(study, study) if meta.filename == _POOLS]
        if not metas:
            return None
        try:
            self.get(metas[0].artifact_id, target)
        except StageError:
            return None
        return read_json(target, Pools)

    def put(self, study: optuna.Study, owner: optuna.Trial | optuna.Study, path: Path, name: str) -> None:
        """Upload one file under `name`."""
        with tempfile.TemporaryDirectory() as temporary:
            # The store names a file after its path's last part.
            copy = Path(temporary) / name
            shutil.copyfile(path, copy)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                try:
                    optuna.artifacts.upload_artifact(
                        artifact_store=self._store, file_path=str(copy), study_or_trial=owner
                    )
                except (optuna.exceptions.OptunaError, StageError):
                    raise
                except Exception as error:
                    raise StageError(_broken(name, "written", error)) from error

    def fetch(self, study: optuna.Study, slot: int, folder: Path, key: str) -> None:
        """Download the files that the training with this key at `slot` left, into `folder`.

        Raises:
            StageError: a file is missing, because its worker wrote into another store.
        """
        metas = {
            meta.filename: meta
            for trial in study.get_trials(deepcopy=False)
            if slot_of(trial) == slot
            for meta in _metas(trial, study)
        }
        missing = [name for name in KEPT_FILES if _flat(name, key) not in metas]
        if missing:
            raise StageError(
                f"The artifact store lacks {missing} of trial {slot}. All workers need the same search.artifacts."
            )
        # The record comes last: it says that the other files are whole.
        for name in sorted(KEPT_FILES, key=lambda name: name == "trained.json"):
            self.get(metas[_flat(name, key)].artifact_id, folder / name)

    def get(self, artifact_id: str, target: Path) -> None:
        """Download one file."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.part")
        try:
            optuna.artifacts.download_artifact(
                artifact_store=self._store, artifact_id=artifact_id, file_path=str(temporary)
            )
        except optuna.artifacts.exceptions.ArtifactNotFound as error:
            raise StageError(
                f"The artifact store lacks {target.name}. All workers need the same search.artifacts."
            ) from error
        except Exception as error:
            raise StageError(_broken(target.name, "read", error)) from error
        temporary.replace(target)


def _broken(name: str, what: str, error: Exception) -> str:
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"The artifact {name} cannot be {what}: {said} Check search.artifacts: the folder and its permissions, or the "
        "bucket and the credentials in the environment."
    )


def _metas(trial: Any, study: optuna.Study) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return list(optuna.artifacts.get_all_artifact_meta(trial, storage=study._storage))


def _flat(name: str, key: str) -> str:
    return f"{key[:16]}__{name.replace('/', '__')}"


def _store(where: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        address = urlsplit(where)
        if address.scheme == "s3":
            try:
                import boto3
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"search.artifacts {where!r} needs boto3, which is not installed: pip install 'promptopt[s3]'."
                ) from error
            prefix = address.path.strip("/")
            store: Any = optuna.artifacts.Boto3ArtifactStore(address.netloc, boto3.client("s3"))
            return _Prefixed(store, prefix) if prefix else store
        if "://" in where:
            raise ConfigError(
                f"search.artifacts {where!r}: allowed are a folder that all workers see, or s3://bucket/prefix."
            )
        Path(where).mkdir(parents=True, exist_ok=True)
        return optuna.artifacts.FileSystemArtifactStore(base_path=where)


class _Prefixed:
    """A store whose names all begin with a prefix."""

    def __init__(self, store: Any, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def open_reader(self, artifact_id: str) -> Any:
        """Open an artifact."""
        return self._store.open_reader(f"{self._prefix}/{artifact_id}")

    def write(self, artifact_id: str, content_body: Any) -> None:
        """Write an artifact."""
        self._store.write(f"{self._prefix}/{artifact_id}", content_body)

    def remove(self, artifact_id: str) -> None:
        """Remove an artifact."""
        self._store.remove(f"{self._prefix}/{artifact_id}")
