"""What the catalog offers: ``/api/products``."""
