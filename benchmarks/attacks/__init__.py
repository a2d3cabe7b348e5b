"""Attacks on the program, by part."""
