"""The parts of `benchmarks.train_vggish_mini`: recordings -> random recording chains -> fitted encoder -> evaluation."""
