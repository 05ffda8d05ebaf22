"""`promptopt publish`: a finished run's files onto a Hub. Says what it would do, and does it only with --really."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `promptopt publish` takes."""
    parser.add_argument("run", type=Path, metavar="RUN_OR_EXPERIMENT.yaml", help="a run's folder, or its experiment")
    parser.add_argument("--repo", required=True, metavar="USER/NAME", help="repository on the Hub; made if need be")
    parser.add_argument("--really", action="store_true", help="upload; without it nothing leaves this machine")
    parser.add_argument("--public", action="store_true", help="anyone may see it (default: private)")
    parser.add_argument("--full", action="store_true", help="the f16 GGUF and the merged Hugging Face model too")


def publish(arguments: argparse.Namespace) -> int:
    """Print what is uploaded, upload it with `--really`, and return 0.

    Raises:
        ConfigError: no run, no repository's name, or no token in the environment.
        StageError: the run has not finished.
        PublishError: the Hub refuses, or cannot be reached.
    """
    from promptopt.deploy.hub import check_repository, token_from_environment, upload
    from promptopt.pipeline.publishing import publishable, run_folder

    repository = check_repository(arguments.repo)
    run = run_folder(arguments.run)
    files = publishable(run, full=arguments.full)
    token = token_from_environment() if arguments.really else ""
    seen = "public" if arguments.public else "private"
    for file in files:
        print(f"{_size(file.size_bytes):>10}  {file.name}")
    print(f"{_size(sum(file.size_bytes for file in files)):>10}  in {len(files)} files to {repository} ({seen})")
    if not arguments.really:
        print(
            "Nothing was uploaded. Read the model card first: "
            f"{files[0].path} (demos in the GGUF are rows of your data). Upload with --really."
        )
        return 0
    address = upload(files, repository, token, private=not arguments.public, message=f"promptopt: {run.resolve().name}")
    print(f"Uploaded: {address}")
    return 0


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"
