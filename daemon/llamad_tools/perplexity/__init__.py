"""How well a model predicts a text, alone or compared with another."""
