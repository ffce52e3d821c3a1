"""m2mdb for ann-benchmarks; see module.py."""
