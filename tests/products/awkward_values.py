"""Texts that need quoting or escaping, and prices that need all of their digits."""

TEXTS = ("Lamp", "=1", "'", '"', "\\", "\x01", "\x1a\x7f", "%s %(x)s", "é\u0301", "\U0001f4a1", " ")
PRICES = (0.0, 5e-324, 1e-7, 0.1, 0.30000000000000004, 24.9, 1 / 3, 131072.01, 123456789.125)
