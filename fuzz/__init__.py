"""Fuzzing: changed bytes into every decoder, parser and opener; no part of the product."""
