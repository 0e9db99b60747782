"""Bulk import and export in NDJSON and CSV."""
