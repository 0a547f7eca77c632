"""Language models: load, make, place and save them."""
