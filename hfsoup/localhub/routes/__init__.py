"""What the Hub answers: one file a subject, each a table of routes that app.py puts together."""
