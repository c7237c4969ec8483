"""Tests of aejax; a package, so that its helper modules and commands are found from the root."""
