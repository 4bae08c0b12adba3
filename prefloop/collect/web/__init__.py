"""The service over HTTP: one JSON API, which the pages, the Python client and simulated annotators use alike."""
