"""Lines of a study that never was: of every part, with numbers that can be worked out by hand."""

MAIN = ("gasm_cast", "without_graphs", "cross_attention")
CHANGES = ("noise", "compression", "dropped", "shuffled", "backwards")


def line(part, variant, seed=1, *, version=1, **more):
    """One run; its course is the same in all."""
    shared = {"version": version, "benchmark": 1, "features": "x", "steps": 8, "batch_size": 32}
    run = {"part": part, "variant": variant, "learning_rate": 0.001, "seed": seed}
    course = {"loss": [3.0, 2.0], "gradient_norm": [1.0, 1.5], "largest_gradient_norm": 1.75}
    if part == "probe":
        course = {}
    if part == "cost":
        course, more = {}, {"parameters": 1000, "flops": 2_500_000, "step_ratio": 0.5} | more
    return {**shared, **run, "share": 1.0, "fold": 0, "parameters": 1234, **course, **more}


def found(top1):
    """What is measured on a split."""
    return {"top1": top1, "opposite": 10.0, "ece": 5.0}


def compared(variant, seed, top1, **more):
    """A run of the comparison; on new combinations it is ten points worse."""
    splits = {"validation": found(top1 + 5), "test": found(top1), "combinations": found(top1 - 10)}
    if variant in MAIN:
        splits |= {name: found(top1 - 20) | {"changed": 30.0} for name in CHANGES}
    return line("comparison", variant, seed, seconds=60.0, **splits, **more)


def study(version=1):
    """Two seeds of four variants; of one_layer only the first."""
    lines = [
        compared(variant, seed, top1 + seed, version=version)
        for variant, top1 in zip((*MAIN, "one_layer"), (60.0, 57.0, 55.0, 59.0), strict=True)
        for seed in (1, 2)
        if (variant, seed) != ("one_layer", 2)
    ]
    lines += [
        line("share", variant, seed, share=0.1, version=version)
        | {"test": found(30.0 + seed), "combinations": found(20.0 + seed)}
        for variant in MAIN
        for seed in (1, 2)
    ]
    lines += [
        line("longer", variant, seed, version=version)
        | {"test": found(70.0 + seed), "combinations": found(65.0 + seed)}
        for variant in MAIN
        for seed in (1, 2)
    ]
    lines += [line("bf16", "gasm_cast", seed, version=version, test=found(61.0)) for seed in (1, 2)]
    lines += [line("cost", variant, 0, version=version) for variant in MAIN]
    clips = {"train_clips": 60, "test_clips": 20}
    lines += [
        line("fights", variant, 1, fold=fold, version=version, test=found(top1 + 2 * fold), **clips)
        for variant, top1 in (("gasm_cast", 70.0), ("cross_attention", 68.0))
        for fold in (1, 2, 3)
    ]
    for seed in (1, 2):
        probes = {"object before": 50.0 + seed, "object after": 60.0 + seed, "order": 40.0}
        lines.append(line("probe", "gasm_cast", seed, version=version, probes=probes))
    return lines
