"""MUMU: data, stages and recipes of its training (Berman & Peysakhovich, 2024)."""
