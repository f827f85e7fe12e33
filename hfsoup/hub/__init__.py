"""The only room that talks to the Hub: client, retries, downloads, offline mode, cards, pushes."""
