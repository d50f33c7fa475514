"""What happens to the served product when its parts die, hang, fill up, lie or are flooded."""
