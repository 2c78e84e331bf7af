"""What a model minimises, for people: as text, LaTeX and HTML."""
