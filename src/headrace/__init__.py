"""Headrace answers questions from private documents, with quotations that are checked."""

__version__ = "0.1.0"
