"""Whether llama.cpp's fastest CPU path works on this machine: tried once in a child process, then remembered.

llama.cpp repacks weights for the CPU at hand ("extra buffer types"). On some AMX machines the stock build dies with
SIGSEGV in the first decode of a quantized model. A crash cannot be caught, so a child process risks it first.
"""

import hashlib
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from promptopt.lm.gguf_info import GgufInfo
from promptopt.user_cache import read_note, user_cache_dir, write_note

PROBE_TIMEOUT_S = 180.0
PROBE_TOKENS = 48
SURVIVED = "promptopt-probe-survived"


@dataclass(frozen=True, slots=True)
class CpuPath:
    """The choice for `model_params.use_extra_bufts`, and why it was made."""

    use_extra_bufts: bool
    reason: str


def choose_cpu_path(info: GgufInfo, version: str) -> CpuPath:
    """Return whether the fast path is safe for this file's tensor types; False whenever that is not known.

    Args:
        info: the model that is going to be loaded; the child decodes with it.
        version: of llama-cpp-python; another build gets another try.
    """
    key = "\n".join([cpu_name(), version, *sorted(info.tensor_types)])
    note_path = user_cache_dir() / "cpu_probe" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    note = read_note(note_path)
    if note is not None and isinstance(note.get("use_extra_bufts"), bool):
        return CpuPath(note["use_extra_bufts"], str(note.get("reason", "remembered")))
    choice, certain = _try_in_child(info.path)
    if certain:
        write_note(note_path, {"use_extra_bufts": choice.use_extra_bufts, "reason": choice.reason, "key": key})
    return choice


def cpu_name() -> str:
    """Name the CPU with the instruction sets it shows: virtual machines hide some of them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features")
    return " ".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))


def _try_in_child(path: Path) -> tuple[CpuPath, bool]:
    """Decode with the fast path in a child process; say what happened, and whether that is worth remembering."""
    command = [sys.executable, "-c", _CHILD, str(path), str(PROBE_TOKENS), SURVIVED]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return CpuPath(False, f"the probe could not run: {error}"), False
    if done.returncode == 0 and SURVIVED in done.stdout:
        return CpuPath(True, "the probe decoded with the fast path"), True
    if done.returncode < 0:
        return CpuPath(False, f"the fast path died with signal {-done.returncode}"), True
    return CpuPath(False, f"the probe failed with exit code {done.returncode}: {done.stderr[-300:]}"), False


# Text for `python -c`, because a child that imported promptopt would need it installed where the child runs.
_CHILD = """
import ctypes, math, sys
import llama_cpp as lib
silent = lib.llama_log_callback(lambda level, text, data: None)
lib.llama_log_set(silent, ctypes.c_void_p(0))
lib.llama_backend_init()
params = lib.llama_model_default_params()
params.use_extra_bufts, params.n_gpu_layers = True, 0
model = lib.llama_model_load_from_file(sys.argv[1].encode(), params)
if not model:
    sys.exit("the model does not load")
cparams = lib.llama_context_default_params()
cparams.n_ctx, cparams.n_batch, cparams.n_threads, cparams.n_threads_batch = 256, 256, 2, 2
context = lib.llama_init_from_model(model, cparams)
if not context:
    sys.exit("no context")
n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
position = 0
for count in (int(sys.argv[2]), 1, 5, 1):
    tokens = (lib.llama_token * count)(*[(7 * i + 3) % n_vocab for i in range(count)])
    if lib.llama_decode(context, lib.llama_batch_get_one(tokens, count)):
        sys.exit("llama_decode failed")
    logits = lib.llama_get_logits_ith(context, -1)
    if not all(math.isfinite(logits[i]) for i in range(n_vocab)):
        sys.exit("logits are not finite")
print(sys.argv[3])
"""
