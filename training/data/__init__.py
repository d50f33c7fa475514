"""From a table of events to a prepared data set: sources, checks, order, features, splits."""
