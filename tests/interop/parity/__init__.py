"""The training classes of SAELens beside ours; frozen arrays allow comparison without SAELens."""
