"""Checkpoints of other projects, read as models of this one."""
