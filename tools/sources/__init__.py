"""Where tools come from. A source finds tools and gives them to the registry; it knows nothing else of it."""
