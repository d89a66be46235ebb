"""Recipes as data, their identity, and the folders of their runs."""
