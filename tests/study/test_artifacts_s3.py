"""Artifacts in S3: moto's server on loopback, asked by boto3 as a real bucket would be."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import optuna
import pytest
from moto.server import ThreadedMotoServer

from promptopt.errors import StageError
from promptopt.study.artifacts import Artifacts
from promptopt.study.storage import close_study, open_study
from promptopt.study.tuner import KEPT_FILES

KEY = "c" * 64


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    # The server forgets nothing while this process lives.
    name = f"studies-{port}"
    boto3.client("s3").create_bucket(Bucket=name)
    yield name
    server.stop()


@pytest.mark.parametrize("prefix", ["", "/deep/er"])
def test_weights_go_through_a_bucket(bucket: str, prefix: str, tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", "s3", optuna.pruners.NopPruner())
    study.enqueue_trial({}, user_attrs={"slot": 0})
    trial = study.ask()
    for name in KEPT_FILES:
        (tmp_path / "made" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made" / name).write_bytes(name.encode() * 1000)
    store = Artifacts(f"s3://{bucket}{prefix}")
    store.keep(study, trial, tmp_path / "made", KEY)
    names = [item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket=bucket)["Contents"]]
    assert len(names) == len(KEPT_FILES)
    assert all(name.startswith(prefix.lstrip("/")) for name in names)
    Artifacts(f"s3://{bucket}{prefix}").fetch(study, 0, tmp_path / "fetched", KEY)
    assert all(
        (tmp_path / "fetched" / name).read_bytes() == (tmp_path / "made" / name).read_bytes() for name in KEPT_FILES
    )
    with pytest.raises(StageError, match="bucket and the credentials"):
        Artifacts("s3://nowhere").keep(study, trial, tmp_path / "made", "d" * 64)
    close_study(study)
