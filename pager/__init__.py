"""The pager layer; see docs/architecture.md."""
