"""A mutation run over the package, outside CI."""
