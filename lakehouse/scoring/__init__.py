"""From a row to an answer: a model's signature, the one encoding of its inputs, and the scorer every path uses."""
