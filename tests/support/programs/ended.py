"""A rank that ends at once and never meets the others."""
