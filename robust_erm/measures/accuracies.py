"""Clean and robust accuracies."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robust_erm.measures.measure import CLEAN, WORST, Look


@dataclass(frozen=True)
class Accuracies:
    """``{train,test}_{clean,robust}_acc``, and ``gap_{clean,robust}``, train less test.

    Accuracies count positive margins. A robust one is over the worst of all attacks, the clean point included, point by
    point; with several attacks ``..._robust_acc_<attack>`` is that of one alone.
    """

    run_axis = True

    def measure(self, look: Look) -> dict[str, Tensor]:
        """As above."""
        found: dict[str, Tensor] = {}
        for part in ("train", "test"):
            named = {f"{part}_robust_acc_{name}": name for name in look.attacks if len(look.attacks) > 1}
            for column, attack in {**named, f"{part}_clean_acc": CLEAN, f"{part}_robust_acc": WORST}.items():
                share = look.accuracy(attack, part)
                if share is not None:
                    found[column] = share
        for kind in ("clean", "robust"):
            found[f"gap_{kind}"] = found[f"train_{kind}_acc"] - found[f"test_{kind}_acc"]
        return found
