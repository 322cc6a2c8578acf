"""System calls of Linux guests: their numbers, prototypes and what their arguments mean."""
