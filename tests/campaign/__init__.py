"""Campaigns: hundreds of kills, wrong commands and damaged files, as a command that can be resumed.

    python -m tests.campaign files --count 10000 --out campaign
    python -m tests.campaign commands --count 300 --out campaign
    python -m tests.campaign kills --count 1000 --out campaign

A campaign is a module of this folder with a function `units(count, folder)`, which yields the name
of each case that ended as it must, and raises AssertionError for the first that did not. Case i is
a function of i alone.
"""
