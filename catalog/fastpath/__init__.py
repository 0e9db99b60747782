"""Fast path: answers hot requests without the framework.

The dispatcher calls their views. It runs behind the middleware, and behind the direct path, which
takes the place of the middleware for requests that have arrived whole.
"""
