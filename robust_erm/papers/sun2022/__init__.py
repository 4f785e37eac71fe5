"""Sun, Ahn, Thrampoulidis & Azizan 2022: mirror descent, p-GD."""
