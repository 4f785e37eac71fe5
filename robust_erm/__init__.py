"""robust-erm: the implicit bias of optimisation in adversarially robust training, measured."""
