"""Creates, updates and deletes of single products, which share transactions."""

from catalog.products.writes.queue import BatchedWrites
from catalog.products.writes.requests import Create, Delete, Precondition, Update, WriteResult

__all__ = ["BatchedWrites", "Create", "Delete", "Precondition", "Update", "WriteResult"]
