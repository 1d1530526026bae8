"""What `explain` can be asked; what the other commands can be asked is in their own files."""
