"""Graphics cards that a plan can be made for without having one.

Memory is what the driver shows, in GiB; arithmetic is dense bfloat16 with float32 accumulation on tensor cores, in
TFLOP/s; bandwidth is that of the memory, in GB/s. Source: NVIDIA's data sheets and architecture white papers (GA102,
AD102, A100, L4, L40S, H100, H200); consumer cards run bfloat16 with float32 accumulation at half their advertised rate.
Cards without bfloat16 (T4, V100) are left out: training here is in bfloat16.
"""

from dataclasses import dataclass

from promptopt.errors import ConfigError


@dataclass(frozen=True)
class Gpu:
    """One kind of card."""

    name: str
    memory_gib: float
    tflops: float
    bandwidth_gb_s: float


GPUS = (
    Gpu("RTX 3060 12GB", 12, 25.5, 360),
    Gpu("RTX 3080 10GB", 10, 59.5, 760),
    Gpu("RTX 3090", 24, 71, 936),
    Gpu("RTX 4060 Ti 16GB", 16, 44, 288),
    Gpu("RTX 4070", 12, 58, 504),
    Gpu("RTX 4080", 16, 97.5, 717),
    Gpu("RTX 4090", 24, 165, 1008),
    Gpu("RTX 5090", 32, 209, 1792),
    Gpu("RTX A6000", 48, 155, 768),
    Gpu("RTX 6000 Ada", 48, 364, 960),
    Gpu("A10G", 24, 70, 600),
    Gpu("L4", 24, 121, 300),
    Gpu("L40S", 48, 362, 864),
    Gpu("A100 40GB", 40, 312, 1555),
    Gpu("A100 80GB", 80, 312, 2039),
    Gpu("H100 PCIe", 80, 756, 2000),
    Gpu("H100", 80, 989, 3350),
    Gpu("H200", 140, 989, 4800),
)


def find_gpu(name: str) -> Gpu:
    """Return the card called `name`, as people write it: case, blanks and the maker's name do not count.

    Raises:
        ConfigError: there is none, or several could be meant.
    """
    wanted = _plain(name)
    found = [gpu for gpu in GPUS if _plain(gpu.name) == wanted] or [gpu for gpu in GPUS if wanted in _plain(gpu.name)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(gpu.name for gpu in (found or GPUS))
    raise ConfigError(f"--gpu {name!r} {'could be several' if found else 'is not in the table'}; name one of: {known}.")


def _plain(name: str) -> str:
    return "".join(name.lower().replace("nvidia", "").replace("geforce", "").split()).replace("-", "")
