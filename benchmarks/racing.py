"""Racing on complete score tables: what stopping rules save, and how often they throw the winner away.

    python benchmarks/racing.py [--tables real,synthetic] [--seeds 500] [--grid] [--quick] [--out FILE]
    python benchmarks/racing.py --collect EXPERIMENT.yaml --name NAME [--rows 200] [--candidates 48] [--gguf FILE]

A table holds every candidate's score on every example. Candidates come in random order, one after the other, each
raced against the best so far exactly as a search does it; examples come in another random order per seed, the same for
all candidates. A cell reads: share of the examples of a full evaluation that were saved / how often every candidate
with the best full score was stopped / mean regret, the best full score minus that of the race's choice, in points of
100.

Looks are promptopt's own (study/pruning.py); that the fast simulation stops every trial where promptopt's and Optuna's
pruners stop it in a real study is checked before anything is measured. Real tables are measured by --collect (keys and
scores, no text) and kept in benchmarks/data; synthetic ones have known true means.
"""

import argparse
import json
import logging
import sys
import time
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine_bench.report import cpu_model, table
from racing_bench.agreement import check_p_values, check_races
from racing_bench.race import Rule, Summary, summaries
from racing_bench.tables import Table, measured, synthetic

from promptopt.config.experiment import RacingConfig

WILCOXON = Rule("wilcoxon", RacingConfig(p_threshold=0.2, min_examples=16, block=8))
"""What promptopt did before its own rule: Optuna's test, Bonferroni."""
EVERY = RacingConfig(p_threshold=0.1, min_examples=2, block=1)


def rivals() -> dict[str, Rule]:
    """Return the rules that are compared, by name."""
    looks = WILCOXON.config
    early = replace_p(looks, 0.05)
    return {
        "always full": Rule("full", looks),
        "Wilcoxon 0.2 / looks": WILCOXON,
        "Wilcoxon 0.2, Pocock": replace(WILCOXON, correction="pocock"),
        **{f"Wilcoxon {p:g}, no correction": Rule("wilcoxon", replace_p(looks, p), "none") for p in (0.05, 0.1, 0.2)},
        "Wilcoxon 0.2 / looks + certain": replace(WILCOXON, certain=True),
        "Optuna's WilcoxonPruner as shipped": Rule("wilcoxon", EVERY, "none"),
        "Wilcoxon 0.2 / looks, zeros without variance": Rule("pratt", looks),
        "paired t 0.2 / looks": Rule("t", looks),
        "sign flip 0.2 / looks": Rule("flip", looks),
        "empirical Bernstein 0.2 / looks": Rule("bernstein", looks),
        "betting 0.2": Rule("betting", looks, "none"),
        "chance to end ahead by t, 0.05": Rule("t, finite", early, "none"),
        "**promptopt**: chance to end ahead 0.2 / looks": Rule("ahead", looks),
        **{f"chance to end ahead {p:g}": Rule("ahead", replace_p(looks, p), "none") for p in (0.02, 0.05, 0.1)},
        "chance to end ahead 0.05 + certain": Rule("ahead", early, "none", certain=True),
        "successive halving by 2": Rule("halving", looks),
        "Optuna's SuccessiveHalvingPruner": Rule("asha", looks),
    }


def replace_p(config: RacingConfig, p_threshold: float) -> RacingConfig:
    return config.model_copy(update={"p_threshold": p_threshold})


def grid() -> dict[str, Rule]:
    """Return every setting of the two rules that are worth setting."""
    found = {}
    kinds = {"Wilcoxon": "wilcoxon", "chance to end ahead": "ahead"}
    for (name, kind), correction, p, low, block in product(
        kinds.items(), ("bonferroni", "none"), (0.05, 0.1, 0.2, 0.4), (8, 16, 24), (4, 8, 16)
    ):
        config = RacingConfig(p_threshold=p, min_examples=low, block=block)
        divided = " / looks" if correction == "bonferroni" else ""
        found[f"{name} {p:g}{divided}, from {low}, every {block}"] = Rule(kind, config, correction)
    return found


def drawn(quick: bool) -> list[Table]:
    """Return the synthetic tables: gaps at 80 examples, then sizes at a gap of 2 points."""
    gaps, sizes = ((0.02,), (200,)) if quick else ((0.0, 0.01, 0.02, 0.05, 0.1), (40, 200, 800))
    return [
        *(synthetic(graded, gap, 80) for graded in (False, True) for gap in gaps),
        *(synthetic(graded, 0.02, size) for graded in (False, True) for size in sizes),
    ]


def measure(tables: list[Table], rules: dict[str, Rule], seeds: int) -> dict[str, dict[str, Summary]]:
    """Return table -> rule -> what came of it; larger tables get fewer orders."""
    found: dict[str, dict[str, Summary]] = {}
    for each in tables:
        started = time.perf_counter()
        orders = max(20, seeds * 80 // max(80, each.examples))
        found[each.name] = {}
        # Looks after every example need p values four times as many; the other rules should not wait for them.
        for wanted in ({k: r for k, r in rules.items() if (r.config.block == 1) is dense} for dense in (False, True)):
            if wanted:
                found[each.name] |= zip(wanted, summaries(each, list(wanted.values()), orders), strict=True)
        seconds = time.perf_counter() - started
        print(
            f"{each.name}: {each.candidates} candidates, {orders} orders, {seconds:.0f} s", file=sys.stderr, flush=True
        )
    return found


def show(title: str, rules: dict[str, Rule], found: dict[str, dict[str, Summary]]) -> None:
    rows = [[name, *(cell(found[each][name]) for each in found)] for name in rules]
    print(f"#### {title}\n\n{table(('rule', *found), rows)}\n", flush=True)


def cell(summary: Summary) -> str:
    return f"{summary.saved:.0%} / {summary.lost:.1%} / {summary.regret:.2f}"


def dominating(found: dict[str, dict[str, Summary]], than: str, slack: float = 0.01) -> list[tuple[float, str]]:
    """Return the rules that save more than `than` on average and have no more regret on any table, best first."""
    better = []
    for name in next(iter(found.values())):
        pairs = [(rules[name], rules[than]) for rules in found.values()]
        gain = sum(mine.saved - theirs.saved for mine, theirs in pairs) / len(pairs)
        if gain > 0 and all(m.regret <= t.regret + slack and m.saved >= t.saved for m, t in pairs):
            better.append((gain, name))
    return sorted(better, reverse=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default="real,synthetic")
    parser.add_argument("--seeds", type=int, default=500, help="orders per table of 80 examples, fewer for larger ones")
    parser.add_argument("--grid", action="store_true", help="all settings on the real tables")
    parser.add_argument("--quick", action="store_true", help="40 orders and few synthetic tables: a minute")
    parser.add_argument("--out", type=Path, help="raw numbers as JSON")
    parser.add_argument("--collect", type=Path, help="an experiment.yaml: measure its table instead")
    parser.add_argument("--name", help="of the table that is collected")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--candidates", type=int, default=48)
    parser.add_argument("--gguf", type=Path, help="model instead of the starter")
    parser.add_argument("--folder", type=Path, default=Path("runs/racing"), help="where a killed collection goes on")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    if arguments.collect:
        from racing_bench.collect import collect
        from racing_bench.tables import DATA

        name = arguments.name or arguments.collect.parent.name
        logging.getLogger("dspy").setLevel(logging.ERROR)
        collect(arguments.collect, arguments.gguf, arguments.candidates, arguments.rows, arguments.folder / name,
                DATA / f"racing_{name}.json")  # fmt: skip
        return 0
    seeds = 40 if arguments.quick else arguments.seeds
    distance, (agreed, trials) = check_p_values(300), check_races(3)
    print(f"{cpu_model()}; python benchmarks/racing.py {' '.join(sys.argv[1:])}\n")
    print(f"The simulation against real studies: {agreed} of {trials} trials stop after the same example; p values "
          f"differ from scipy's by at most {distance:.1g}.\n")  # fmt: skip
    if agreed < trials or not distance <= 1e-9:
        raise SystemExit("The simulation does not decide as the pruners do; its numbers would mean nothing.")
    rules, everything = rivals(), {}
    if "real" in arguments.tables:
        everything["real"] = measure(measured(), rules, seeds)
        show("Measured tables", rules, everything["real"])
    if "synthetic" in arguments.tables:
        everything["synthetic"] = measure(drawn(arguments.quick), rules, seeds)
        for text, wanted in (("80 examples", ", 80"), ("40, 200 and 800 examples", ("40", "200", "800"))):
            chosen = {name: found for name, found in everything["synthetic"].items() if name.endswith(wanted)}
            show(f"Synthetic tables, {text}", rules, chosen)
    if arguments.grid:
        everything["grid"] = measure(measured(), grid(), seeds)
        show("Settings on measured tables", grid(), everything["grid"])
        ahead = dominating(everything["grid"], "Wilcoxon 0.2 / looks, from 16, every 8")
        print("Settings that save more than the default on every measured table, with regret at most 0.01 higher:\n")
        print("\n".join(f"- {name}: {gain:+.1%}" for gain, name in ahead[:20]))
    if arguments.out:
        plain = {k: {t: {r: asdict(s) for r, s in rs.items()} for t, rs in v.items()} for k, v in everything.items()}
        arguments.out.write_text(json.dumps(plain, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
