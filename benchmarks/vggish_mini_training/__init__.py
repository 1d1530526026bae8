"""Train `vggish_mini`, part by part: recordings, random recording chains, fit, evaluation."""
