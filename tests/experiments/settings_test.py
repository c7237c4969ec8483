"""Tests that settings out of their range are refused before anything is read, made or written."""

import dataclasses
import importlib
import os
import pkgutil
import signal
import subprocess
import sys
import typing

import numpy as np
import pytest

import aejax as ae
import experiments
from aejax import memory
from aejax.errors import UserError
from experiments import digits_vae
from experiments.shared.numbers import MOST, check
from experiments.shared.training import check_fits
from tests import kinds

MODULES = [
    importlib.import_module(f"experiments.{entry.name}")
    for entry in pkgutil.iter_modules(experiments.__path__)
    if not entry.ispkg and not entry.name.startswith("_")
]
EXPERIMENTS = {m.EXPERIMENT.name: m.EXPERIMENT for m in MODULES if hasattr(m, "EXPERIMENT")}
# Values outside the range of every number; a text of many lines is none of any setting's either.
OUTSIDE = (-1, 2**200, float("nan"), float("inf"), float("-inf"), "x" * 10_000, "a\nb", b"", {})


def test_there_are_experiments():
    assert len(EXPERIMENTS) > 15


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_setting_is_checked(name):
    """Fails if a setting's annotation is not understood, or if its own default is refused."""
    experiment = EXPERIMENTS[name]
    for config in (experiment.config(), *experiment.presets.values()):
        check(config)
    for field in dataclasses.fields(experiment.config):
        flag = f"--{field.name.replace('_', '-')} is "
        for value in OUTSIDE:
            config = dataclasses.replace(experiment.config(), **{field.name: value})
            with pytest.raises(UserError, match=flag) as caught:
                check(config)
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 400


def test_counts_are_at_least_one_and_seeds_may_be_zero():
    """Fails if all integers have the same range."""
    for name in ("latents", "seeds", "steps", "chunk"):
        with pytest.raises(UserError, match=f"--{name} is 0: give an integer of 1 or more, and at"):
            check(dataclasses.replace(digits_vae.Config(), **{name: 0}))
    check(dataclasses.replace(digits_vae.Config(), seed=0, warmup=0, beta=0.0))
    check(dataclasses.replace(digits_vae.Config(), seed=MOST))
    hints = typing.get_type_hints(digits_vae.Config)
    assert hints["latents"] is int


def test_what_cannot_fit_is_refused_before_it_is_built(monkeypatch):
    """Fails if only the state counts, or if the networks are built first, which never ends."""
    split = ae.data.arrays(kinds.pixels())[0]

    def fits(**numbers):
        config = dataclasses.replace(digits_vae.Config(), **numbers)
        check_fits(digits_vae.build(config, kinds.EVENT)["vae"], config, split)

    fits()
    for numbers in ({"width": MOST}, {"seeds": 10_000_000}, {"batch": MOST}):
        with pytest.raises(UserError, match=r"needs at least [0-9,.]+ GiB of memory, but there is"):
            fits(**numbers)
    # A state of 5 models with 2 moments and an average of 37,408 numbers each.
    monkeypatch.setattr(memory, "device_memory", lambda: 4 * 5 * 4 * 30_000)
    with pytest.raises(UserError, match="the training of 5 models of 128 examples"):
        fits()


def test_an_array_is_as_large_as_its_numbers():
    """Fails if the size of an element is left out."""
    assert memory.size_of({"a": np.zeros((3, 4), np.float16), "b": np.zeros((), np.int64)}) == 32
    assert memory.host_memory() > 2**28


@pytest.mark.parametrize("where", ["while modules are found", "in a callback of the collector"])
def test_sigterm_at_the_start_ends_with_a_sentence(tmp_path, where):
    """Fails if the signal has no handler before the run: there is no sentence then.

    Python discards what is raised in a callback of the garbage collector. The second case fails if
    the signal is not sent again: the command would go on.
    """
    program = (
        "import gc, os, runpy, signal, sys, time\n"
        "def once(*_):\n"
        "    gc.callbacks.clear()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    pass\n"
        "class Stopping:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'aejax':\n"
        f"            if {where.startswith('in')}:\n"
        "                gc.callbacks.append(once)\n"
        "                gc.collect()\n"
        "                time.sleep(60)\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Stopping())\n"
        "sys.argv = ['experiments', 'digits-vae']\n"
        "runpy.run_module('experiments', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(kinds.ROOT)},
    )
    assert done.returncode == 128 + signal.SIGTERM
    said = "SIGTERM: stopped; start the same command again to go on\n"
    assert done.stderr in (said, said * 2)
    assert list(tmp_path.iterdir()) == []
