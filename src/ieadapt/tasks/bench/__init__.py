"""Benchmarks that papers use: VBench, V2VBench, LOVEU-TGVE."""
