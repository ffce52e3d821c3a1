"""The compute layer; see docs/architecture.md."""
