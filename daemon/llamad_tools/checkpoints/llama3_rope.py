"""Llama 3.1's scaling of rotary position embedding, as GGUF's tensor rope_freqs.weight holds it."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Numbers of the scaling; old_context: tokens the model was first trained on."""

    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    old_context: float = 8192.0

    def factors(self, theta: float, head_dim: int) -> list[float]:
        """Return what each rotation's wavelength is stretched by: (head_dim / 2).

        theta: the base of the frequencies. Short waves stay, those longer than the old context are
        stretched whole, those between in part (Llama 3.1, reference code, apply_scaling).
        """
        low, high = self.low_freq_factor, self.high_freq_factor
        result = []
        for i in range(head_dim // 2):
            turns = self.old_context / (2 * math.pi * theta ** (2 * i / head_dim))
            smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
            result.append(1 / ((1 - smooth) / self.factor + smooth))
        return result
