"""The index layer; see docs/architecture.md."""
