"""Data: arrays, and what is known of the law that made them; one file each."""
