"""Model folders: finding, loading, exporting, and the models that ship."""
