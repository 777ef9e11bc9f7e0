"""Everything that crosses the border to other programs, as strict models: one file a subject, `base` for what
they share."""
