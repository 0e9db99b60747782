"""Tools of other people that talk to the service."""
