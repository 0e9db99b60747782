"""Mutation run: put small faults into the code, and see whether the tests beside it notice them.

Neither mutmut nor cosmic-ray is used. mutmut leaves functions with decorators alone, among them
all routes, and chooses no tests per module; cosmic-ray changes the files of the tree that it runs
in, and has one command for all modules. Neither draws samples.
"""
