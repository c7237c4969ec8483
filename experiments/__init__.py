"""Experiments, one file each: a frozen dataclass of numbers, its data, parts, figures and page.

    python -m experiments                     lists them
    python -m experiments NAME --help         their flags
    python -m experiments NAME --out DIR      trains, evaluates and reports into DIR

Only `__main__` reads the command line, with tyro: in Python it is
`drive(digits_vae.EXPERIMENT, digits_vae.Config(steps=100), Place(out="here"))`.
"""
