"""HTTP only: views parse a request, call chat/services.py once, and render the result."""
