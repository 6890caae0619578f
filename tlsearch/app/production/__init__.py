"""From the winner of a search to production: confirm, promote, export."""
