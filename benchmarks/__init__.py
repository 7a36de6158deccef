"""Code that measures, the results it recorded, and the tables made from them."""
