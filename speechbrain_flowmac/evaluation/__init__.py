"""The codec against its peers: systems, scores, tables, plots and pages."""
