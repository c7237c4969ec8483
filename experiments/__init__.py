"""Experiments. Each file defines one: its settings, data, models, test results and report page.

    python -m experiments                     lists the experiments
    python -m experiments NAME --help         describes an experiment and its flags
    python -m experiments NAME --out DIR      trains, evaluates and writes a report to DIR

Only `__main__` reads the command line, with tyro. In Python an experiment is started by
`drive(digits_vae.EXPERIMENT, digits_vae.Config(steps=100), Place(out="here"))`, where `drive` is in
`experiments.shared.course` and `Place` in `experiments.shared.place`.
"""
