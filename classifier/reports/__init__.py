"""Reports: a frozen payload, and the page, PDF, FHIR bundle and CSV files that are drawn from it alone."""
