"""Tokens of whole corpora: stores, and how they are filled."""
