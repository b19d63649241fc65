"""Admission, fair claiming, leases, recovery. Knows neither Flask nor torch."""
