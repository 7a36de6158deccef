"""Enhancement: guidance and direct adaptation of chosen attention maps."""
