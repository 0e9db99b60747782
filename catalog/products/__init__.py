"""Products: ``/api/products``."""
