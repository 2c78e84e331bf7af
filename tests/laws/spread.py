"""Laws of proximal maps with steps that are spread widely."""
