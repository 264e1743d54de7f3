"""The nodes that graphs are made of; each does one thing and knows nothing of the graph it stands in."""
