"""HTTP only: views parse a request, call a service once, and render the result."""
