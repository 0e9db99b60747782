"""The database: tables' common ground, engines, failures, and the two ways in.

Knows no web framework and no feature. Every column says how its text compares, every unit of work
has a deadline, and every driver error leaves here as one of the service's own, so that the three
engines give the same answers.
"""
