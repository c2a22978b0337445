"""The command line: list, run, sweep, show, verify, bench. Help texts come from the docstrings below."""

import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
import tyro

from lib import ledger, report
from lib.bench import describe
from lib.bench import save as save_bench
from lib.bench_gpu import bench_method_on_gpu
from lib.bench_lmn import bench_lmn
from lib.bench_mann import PAPER as BENCHED
from lib.bench_mann import bench_method
from lib.bench_mbpa import bench_mbpa, goals
from lib.data.store import DataError, StandInWarning
from lib.experiments import EXPERIMENTS, PROFILES, RunOptions, find_experiment
from lib.ledger import LedgerError
from lib.ray_sweep import sweep_on_ray
from lib.training import distributed
from lib.training.checkpoint import CheckpointError
from lib.training.loop import NonFiniteLoss, pick_device

INTERRUPTED = 130  # the exit status that shells give to what Ctrl+C ended
OUTCOMES = {True: "ok  ", False: "FAIL", None: "----"}


def list_experiments() -> None:
    """Every experiment: its table or figure, its variants, and what the ledger has of it."""
    print(report.experiment_list(EXPERIMENTS.values()))


def run(
    experiment: tyro.conf.Positional[str],
    *,
    profile: str = "smoke",
    seed: int = 0,
    together: int = 1,
    variant: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    unroll: str = "auto",
    minutes: float | None = None,
    record_unfinished: bool = False,
    keep_checkpoint: bool = False,
    runs: Path = RunOptions.runs,
) -> None:
    """Run an experiment and record it; a run that was cut goes on where its last checkpoint is. Under torchrun, several
    processes train one model: `torchrun --nproc-per-node 2 -m lib run mann.table1`.

    Args:
        experiment: its name, such as mann.table1.
        profile: smoke (seconds), short (minutes on a laptop) or paper (the paper's sizes).
        seed: of the weights and of the training episodes.
        together: train so many seeds at once, from `seed` on, as one batched model: fast on a GPU. A record for each.
        variant: one row or curve only; all of them if left out.
        device: auto, cpu, cuda, cuda:1 ...
        threads: of PyTorch on the CPU; one leaves the other cores to you.
        unroll: how an episode's steps are done: plain, fast (by hand: MANN on a CPU), compiled (by PyTorch), graph or
            compiled-graph (of the whole update, on a GPU) or auto.
        minutes: stop each variant after so long, to go on at the next call.
        record_unfinished: also test and record a run that `minutes` stopped, marked as unfinished.
        keep_checkpoint: keep the trained weights under data/checkpoints, so that `verify` can test them again.
        runs: the folder of runs in progress.
    """
    if together < 1:
        raise ValueError(f"--together is how many seeds to train, it cannot be {together}; leave it out for one")
    if threads is not None:
        torch.set_num_threads(threads)
    with distributed.joined(device) as own_device:
        found = find_experiment(experiment)
        options = RunOptions(
            device=own_device,
            unroll=unroll,
            progress=sys.stderr.isatty(),
            minutes=minutes,
            record_unfinished=record_unfinished,
            keep_checkpoint=keep_checkpoint,
            runs=runs,
        )
        for each in found.variants if variant is None else (variant,):
            found.check(each, profile)
            name, drawn = found.drawn_from.get(each, (found.name, each))
            source = find_experiment(name)
            seeds = list(range(seed, seed + together))
            if together > 1 and (not source.run_together or distributed.size() > 1):
                raise ValueError(f"{name} cannot train several seeds together here; leave --together out")
            if distributed.is_first():
                if found.drawn_from:
                    print(f"{found.name}, {each}, is drawn from a run of {name}")
                print(f"{name}, {drawn}, {profile} profile, seed {', '.join(map(str, seeds))}", flush=True)
            earlier = {each: ledger.find_record(name, drawn, profile, each) for each in seeds}
            if together > 1:
                records = source.run_together(drawn, profile, seeds, options)
            else:
                records = [source.run(drawn, profile, seed, options)]
            for record in records:
                if record:
                    print(report.describe_record(record), flush=True)
                    replaced = earlier[record.seed] if record.metrics else None
                    if replaced and replaced.data["sha256"] != record.data["sha256"]:
                        print(f"  it replaces a record of other data ({replaced.data['name']}); git has that one")
                elif distributed.is_first():
                    print("  not finished in the time that was given; run it again to go on", flush=True)


def sweep(
    *,
    profile: str = "paper",
    minutes: float = 9.0,
    device: str = "auto",
    threads: int = 1,
    unroll: str = "auto",
    parallel: int = 1,
    runs: Path = RunOptions.runs,
    ray: str | None = None,
    gpus_per_run: float = 0.0,
) -> None:
    """Do the runs that the ledger lacks, the most wanted first, and stop within the time; call again to go on.

    Args:
        profile: which profile's runs.
        minutes: when to stop; runs in progress are checkpointed, and go on at the next call.
        device: auto, cpu, cuda, cuda:1 ...
        threads: of PyTorch for each run on the CPU.
        unroll: how an episode's steps are done, see `run`.
        parallel: runs at a time, each a process of its own; several share one GPU well.
        runs: the folder of runs in progress.
        ray: do them on the Ray cluster at this address (auto, ray://host:10001 ...; local starts one on this machine),
            as many at a time as it has room for.
        gpus_per_run: with --ray, the share of a GPU that each run takes, such as 0.25; 0 trains on the CPU.
    """
    if distributed.launched():
        raise ValueError("a sweep starts processes of its own: call it without torchrun, which is for `run`")
    if gpus_per_run and ray is None:
        raise ValueError("--gpus-per-run is for --ray; on this machine, --parallel says how many share a GPU")
    if ray is not None and not gpus_per_run:
        if device.startswith("cuda"):
            raise ValueError("with --ray, --device cuda needs --gpus-per-run, the share of a GPU that each run takes")
        device = "cpu"  # a run that takes no GPU of the cluster must not pick one
    if profile not in PROFILES:
        raise ValueError(f"there is no profile {profile!r}; known: {', '.join(PROFILES)}")
    until = time.monotonic() + 60 * minutes
    waiting = [
        (experiment.name, variant, seed)
        for experiment in EXPERIMENTS.values()
        for variant, seed in experiment.wanted
        if not _is_complete(experiment.name, variant, profile, seed)
    ]
    if not waiting:
        print(f"the ledger has every wanted run of the {profile} profile")
        return
    commands = {
        ledger.record_name(name, variant, profile, seed): ["run", name, "--profile", profile, "--variant", variant]
        + ["--seed", str(seed), "--device", device, "--threads", str(threads), "--unroll", unroll, "--keep-checkpoint"]
        for name, variant, seed in waiting
    }
    if ray is None:
        failed = _sweep_here(commands, until, parallel, runs)
    else:
        in_progress = ledger.ROOT / runs
        failed = sweep_on_ray(ray, commands, minutes=minutes, cpus=threads, gpus=gpus_per_run, in_progress=in_progress)
    if failed:
        raise SystemExit(f"these runs failed, see above: {', '.join(failed)}")


def _sweep_here(commands: dict[str, list[str]], until: float, parallel: int, runs: Path) -> list[str]:
    """Do the runs, name to arguments, in processes of this machine; the names of those that failed."""
    waiting = list(commands.items())
    running: dict[subprocess.Popen, str] = {}
    failed: list[str] = []
    while waiting or running:
        while waiting and len(running) < parallel and time.monotonic() < until:
            name, arguments = waiting.pop(0)
            left = max((until - time.monotonic()) / 60, 0.0)
            command = [sys.executable, "-m", "lib", *arguments, "--minutes", f"{left:.3f}", "--runs", str(runs)]
            running[subprocess.Popen(command, cwd=ledger.ROOT)] = name
        if not running:
            break
        for process in [p for p in running if p.poll() is not None]:
            if name := running.pop(process):
                failed += [name] if process.returncode else []
        time.sleep(0.2)
    return failed


def show(experiment: tyro.conf.Positional[str]) -> None:
    """The paper's numbers beside ours.

    Args:
        experiment: its name, such as mann.table1.
    """
    print(report.text_table(find_experiment(experiment).table()))


def verify(experiment: tyro.conf.Positional[str | None] = None, *, device: str = "auto") -> None:
    """Test the committed checkpoints again and compare with their records; fails if one differs. Where the data that a
    record was made on is not at hand, its checkpoint is not tested, and the line says so.

    Args:
        experiment: one experiment only; all of them if left out.
        device: auto, cpu, cuda, cuda:1 ...
    """
    if experiment is not None:
        find_experiment(experiment)
    outcomes = []
    for record in ledger.load_records(experiment):
        if record.checkpoint is not None:
            ok, message = find_experiment(record.experiment).verify(record, device)
            print(f"{OUTCOMES[ok]} {record.name}: {message}", flush=True)
            outcomes.append(ok)
    if not outcomes:
        print("no record keeps a checkpoint")
    elif None in outcomes:
        print(f"{len(outcomes) - outcomes.count(None)} tested, {outcomes.count(None)} not, for want of their data")
    if False in outcomes:
        raise SystemExit(1)


def bench(
    method: tyro.conf.Positional[str] = "mann",
    *,
    device: str = "auto",
    threads: int | None = None,
    repetitions: int = 10,
    compile: bool = True,
    whole: bool = False,
    save: bool = False,
) -> None:
    """Ratios of two ways of doing the same thing, measured side by side in one run.

    Args:
        method: whose hot paths.
        device: auto, cpu, cuda, cuda:1 ...
        threads: of PyTorch on the CPU.
        repetitions: of each way; the median is shown.
        compile: also the compiled training step, which takes a minute or two to compile.
        whole: of mbpa, time every word of a text as long as Penn Treebank's test text, in place of a part of it.
        save: keep the measurement in data/bench, for the book to show.
    """
    if method not in (*BENCHED, "lmn", "mbpa"):
        raise ValueError(f"there is no benchmark of {method!r}; known: {', '.join(BENCHED)}, lmn, mbpa")
    if threads is not None:
        torch.set_num_threads(threads)
    if method == "lmn":
        found = bench_lmn(pick_device(device), repetitions)
    elif method == "mbpa":
        found = bench_mbpa(pick_device(device), repetitions, whole)
    else:
        found = bench_method(method, pick_device(device), repetitions, compile)
    print(describe(found))
    if method == "mbpa":
        print(goals(found))
    if method in BENCHED and found.machine["device"] == "cuda":
        print(bench_method_on_gpu(method, pick_device(device), repetitions, compile))
    if save:
        print(f"kept in {save_bench(found)}")


def _is_complete(experiment: str, variant: str, profile: str, seed: int) -> bool:
    record = ledger.find_record(experiment, variant, profile, seed)
    return record is not None and record.complete


def _tell_of_stand_ins_once() -> None:
    """From here on, one line for each stand-in. Python itself would repeat it with each variant: what it has shown is
    forgotten when a library changes the filters of warnings."""
    show, told = warnings.showwarning, set()

    def show_once(message, category, *where):
        if not issubclass(category, StandInWarning):
            show(message, category, *where)
        elif str(message) not in told:
            told.add(str(message))
            print(f"note: {message}", file=sys.stderr)

    warnings.showwarning = show_once


def main() -> None:
    """Entry point; an error that a user can mend is one sentence, not a traceback, and so is Ctrl+C (status 130)."""
    commands = {"list": list_experiments, "run": run, "sweep": sweep, "show": show, "verify": verify, "bench": bench}
    _tell_of_stand_ins_once()
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="python -m lib")
    except (ValueError, DataError, LedgerError, CheckpointError, NonFiniteLoss) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        print("stopped; call the same command again to go on from the last checkpoint", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
