"""Replies of views: problems, streams, preconditions and content negotiation."""
