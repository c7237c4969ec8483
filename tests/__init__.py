"""Tests of aejax. They are a package, so that helper modules can be imported from the root."""
