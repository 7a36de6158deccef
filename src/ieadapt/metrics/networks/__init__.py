"""The networks behind some metrics, with module names as in their published weights."""
