"""Sample conversations for the demo, and questions whose answers lie in them."""
