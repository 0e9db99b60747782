"""Load: comparisons that a person runs and reads; nothing here is part of the test run."""
