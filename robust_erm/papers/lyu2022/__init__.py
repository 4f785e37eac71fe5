"""Lyu & Zhu 2022, Implicit Bias of Adversarial Training for Deep Neural Networks."""
