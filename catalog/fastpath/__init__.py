"""Fast path: answers hot requests without the framework."""
