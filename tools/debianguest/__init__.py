"""The guests that have a disk with Debian: packages, their configuration, the disk."""
