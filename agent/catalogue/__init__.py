"""Which models there are, where they live on disk, and whether they fit."""
