"""The query layer; see docs/architecture.md."""
