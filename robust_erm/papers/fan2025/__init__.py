"""Fan, Schmidt & Thrampoulidis 2025, "Implicit bias of spectral descent and Muon on multiclass separable data"."""
