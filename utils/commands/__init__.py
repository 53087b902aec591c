"""The commands of `python -m utils`; each module registers its own, and imports what it needs when it is called."""
