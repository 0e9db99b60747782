"""What a view returns: replies and problems, streams, preconditions and content negotiation."""
