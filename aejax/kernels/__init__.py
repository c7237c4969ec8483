"""The few hot operations that XLA's plain form does not do well."""
