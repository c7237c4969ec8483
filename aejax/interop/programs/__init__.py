"""Programs that leave the library: a trained part with its numbers, in the files of other tools."""
