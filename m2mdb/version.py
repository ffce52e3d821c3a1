"""The version of m2mdb, without importing it."""

VERSION = "0.1.0"
