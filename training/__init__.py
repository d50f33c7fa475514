"""The offline half of Marquee, in running order: data, model, train, evaluate, publish."""
