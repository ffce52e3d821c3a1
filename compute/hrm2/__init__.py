"""HRM2: routing over clusters, 1-bit and 8-bit codes, and the kernels that search them."""
