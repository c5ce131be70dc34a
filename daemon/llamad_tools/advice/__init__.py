"""Which quantization of a model fits a machine."""
