"""Mini-batches: Baek, Song & Yun 2025 on Adam, Li, Tang & Zou 2026 on steepest descent, Nacson et al. 2019 on SGD."""
