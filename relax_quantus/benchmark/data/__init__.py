"""What is explained by the benchmark: synthetic scenes, recordings, planted calls, annotated boxes; clips with their truth leave."""
