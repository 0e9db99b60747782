"""HTTP conventions that all blueprints share; independent of every feature."""
