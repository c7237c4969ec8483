"""SAELens' own training classes beside ours; the frozen arrays keep the comparison without it."""
