"""MUMU: pictures and words in one prompt (Berman & Peysakhovich, 2024).

prompt (words, crops) ── encoder (Idefics2, no perceiver) ── connector ── cross-attention of SDXL

Importing this package imports no torch.
"""
