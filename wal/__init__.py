"""The wal layer; see docs/architecture.md."""
