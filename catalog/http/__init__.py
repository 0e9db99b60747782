"""Conventions of the wire that all blueprints share; knows no feature."""
