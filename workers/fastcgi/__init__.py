"""FastCGI 1.0 without input or output: bytes in, events out."""
