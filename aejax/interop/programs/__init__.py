"""Programs for export: a trained model, or a part of it, with its weights in other tools' files."""
