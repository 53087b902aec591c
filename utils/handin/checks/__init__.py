"""The checks that a brief can ask for, by kind of file. Importing this package puts all of them into `CHECKS`."""

from utils.handin.checks import files, filled_heads, label_tables, notebooks, samples, texts

__all__ = ["filled_heads", "files", "label_tables", "notebooks", "samples", "texts"]
