"""Database layer: column types, engines, error translation, and units of work.

It depends on no web framework and no feature. Every column defines how its text compares, every
unit of work has a deadline, and every driver error is translated into one of the service's own, so
that the three engines behave alike.
"""
