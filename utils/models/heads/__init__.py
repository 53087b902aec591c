"""Fills the missing stripes of head slices."""
