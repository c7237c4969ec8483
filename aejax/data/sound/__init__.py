"""Data sets of sounds: named ones, and folders of .wav and .flac files."""
